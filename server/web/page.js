// Polls attention.json and draws it, with figure.js. Everything from the daemon goes into the page as text nodes or
// attributes, never as HTML. A figure is redrawn only when its data or its width has changed, so that the cursor, the
// focus and an open table stay.
"use strict";

const POLL_MS = 2000;
const ANSWER_MS = 5000; // then the daemon counts as lost
const HISTORY = 120; // samples of throughput: four minutes

// Rows that see one key only have no choice: their H / ln n is 1 by convention, and says nothing.
function withoutFirstRow(last) {
  const keep = (values) => values.filter((_, column) => last.context[column] > 1);
  return { ...last, context: keep(last.context), layers: last.layers.map((layer) => ({ ...layer,
    normalized_entropy: keep(layer.normalized_entropy), effective_context: keep(layer.effective_context),
    max_probability: keep(layer.max_probability) })) };
}

// ---- numbers

const seconds = (s) => (!isNumber(s) ? "–" : s < 1 ? `${Math.round(s * 1000)} ms` : `${s.toFixed(1)} s`);
const clock = (time) => new Date(time * 1000).toLocaleTimeString("en-GB");
const rate = (x) => (!isNumber(x) ? "–" : x < 100 ? x.toFixed(1) : whole(x));

// The mean of all layers of one statistic, by context: null where no layer has rows.
const layerMean = (last, field) => last.context.map((_, column) => mean(last.layers.map((l) => l[field][column])));

const figures = new Map();
function figure(parent, key) {
  if (!figures.has(key)) figures.set(key, new Figure(parent, key));
  return figures.get(key);
}
// Removes the figures under `prefix` whose keys are no longer wanted.
function keepFigures(prefix, keys) {
  for (const [key, old] of figures) {
    if (!key.startsWith(prefix) || keys.includes(key)) continue;
    old.root.remove();
    figures.delete(key);
  }
}

// ---- the heat maps

function drawModelMap(fig, model, width) {
  const last = model.last;
  const map = { rows: last.layers.map((layer) => String(layer.layer)), columns: last.context.map(context),
    cells: last.layers.map((layer) => layer.normalized_entropy), means: layerMean(last, "normalized_entropy"),
    label: "keys n visible to the row, from" };
  drawHeatMap(fig, map, width, (row, column) => {
    const layer = last.layers[row], n = last.context[column];
    return !isNumber(layer.normalized_entropy[column])
      ? `Layer ${layer.layer}, ${context(n)} keys: not measured`
      : `Layer ${layer.layer}, ${context(n)} keys: H / ln n ${fixed(3)(layer.normalized_entropy[column])}, attends to ` +
        `${fixed(1)(layer.effective_context[column])} keys, largest probability ` +
        fixed(3)(layer.max_probability[column]);
  });
}

function updateHeatMaps(models) {
  const measured = models.filter((model) => model.last);
  keepFigures("map:", measured.map((model) => `map:${model.name}`));
  showEmpty($("maps"), measured.length === 0);
  for (const model of measured) {
    const fig = figure($("maps"), `map:${model.name}`);
    const last = model.last;
    fig.update(`${last.id}`, (width) => {
      fig.setCaption(`${model.name} · ${model.policy}`,
        `request ${last.id}, ${whole(last.prompt_tokens)} tokens` +
        (last.cached_tokens ? ` (${whole(last.cached_tokens)} cached, not measured)` : "") + `, ${clock(last.time)}`);
      drawModelMap(fig, model, width);
      const means = layerMean(last, "normalized_entropy");
      const shown = means.map((value, i) => [last.context[i], value]).filter(([, value]) => isNumber(value));
      const [first, end] = [shown[0], shown[shown.length - 1]];
      fig.svg.setAttribute("aria-label", `Heat map of normalised entropy for ${model.name} under ${model.policy}: ` +
        `${last.layers.length} layers by context length. The mean of all layers is ${fixed(2)(first[1])} at ` +
        `${context(first[0])} keys and ${fixed(2)(end[1])} at ${context(end[0])}. Arrow keys read single cells.`);
      fig.setTable(`Normalised entropy of ${model.name}`, ["Layer", ...last.context.map(context)],
        [...last.layers.map((layer) => [String(layer.layer), ...layer.normalized_entropy.map(fixed(3))]),
          ["all", ...means.map(fixed(3))]]);
    });
  }
}

// ---- curves over the context length

const CURVES = [
  { field: "normalized_entropy", title: "Normalised entropy", about: "H / ln n: 1 is flat", format: fixed(3), top: 1 },
  { field: "effective_context", title: "Effective context", about: "e^H, keys attended to", format: fixed(1), log: true },
  { field: "max_probability", title: "Maximum probability", about: "of the most attended key", format: fixed(3) },
];

function drawCurve(fig, curve, series, contexts, width) {
  const left = 38, right = 12, top = 8, height = 230, bottom = height - 36;
  fig.setHeight(width, height);
  const values = series.flatMap((s) => s.values.filter(isNumber));
  const xLow = Math.log2(contexts[0]), xHigh = Math.max(xLow + 1, Math.log2(contexts[contexts.length - 1]));
  const x = (n) => left + ((Math.log2(n) - xLow) / (xHigh - xLow)) * (width - left - right);
  const highest = Math.max(...values, curve.log ? 2 : 0);
  const limit = curve.top || (curve.log ? 2 ** Math.ceil(Math.log2(highest)) : Math.min(1, Math.ceil(highest * 5) / 5));
  const y = curve.log
    ? (v) => bottom - (Math.log2(Math.max(v, 1)) / Math.log2(limit)) * (bottom - top)
    : (v) => bottom - (v / limit) * (bottom - top);

  const ticks = curve.log
    ? Array.from({ length: Math.floor(Math.log2(limit) / 2) + 1 }, (_, i) => 4 ** i)
    : [0, 0.25, 0.5, 0.75, 1].map((share) => share * limit);
  const axes = svg("g");
  for (const tick of ticks) {
    axes.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" },
        curve.log ? context(tick) : String(Number(tick.toFixed(2)))));
  }
  const every = Math.ceil(contexts.length / Math.max(2, Math.floor((width - left) / 44)));
  contexts.forEach((n, i) => {
    if ((contexts.length - 1 - i) % every) return;
    axes.append(svg("text", { x: x(n), y: bottom + 16, "text-anchor": "middle" }, context(n)));
  });
  axes.append(svg("text", { x: (left + width - right) / 2, y: bottom + 32, "text-anchor": "middle" }, "keys n, from"));
  fig.svg.append(axes);
  if (curve.log) { // flat attention: e^H = n, whose mean over n to 2n - 1 is 1.5 n - 0.5
    const flat = (n) => 1.5 * n - 0.5;
    const end = Math.min(contexts[contexts.length - 1], (limit + 0.5) / 1.5);
    const steps = Array.from({ length: 40 }, (_, i) => contexts[0] * (end / contexts[0]) ** (i / 39));
    fig.svg.append(svg("path", { class: "flat", d: `M${steps.map((n) => `${x(n)} ${y(flat(n))}`).join("L")}` }),
      svg("text", { x: x(end) - 9, y: y(flat(end)) + 3, "text-anchor": "end" }, "flat"));
  }
  for (const s of series) {
    let path = "", pen = "M";
    s.values.forEach((value, i) => {
      if (!isNumber(value)) { pen = "M"; return; }
      path += `${pen}${x(contexts[i]).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
    });
    const line = svg("path", { class: "curve", d: path, "stroke-dasharray": seriesDash(s.index) });
    line.style.stroke = seriesColour(s.index);
    fig.svg.append(line);
  }
  const cursor = svg("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
  fig.svg.append(cursor);
  const nearest = (px) => contexts.reduce((best, n, i) =>
    (Math.abs(x(n) - px) < Math.abs(x(contexts[best]) - px) ? i : best), 0);
  fig.setCursor(contexts.length, 1, (px) => [nearest(px), 0], (column) => {
    cursor.setAttribute("x1", x(contexts[column]));
    cursor.setAttribute("x2", x(contexts[column]));
    cursor.setAttribute("visibility", "visible");
    fig.output.textContent = `${context(contexts[column])} keys: ` +
      series.map((s) => `${s.name} ${curve.format(s.values[column])}`).join(", ");
  });
}

function updateCurves(models) {
  const measured = models.map((model, index) => ({ model, index })).filter(({ model }) => model.last);
  const contexts = [...new Set(measured.flatMap(({ model }) => model.last.context))].sort((a, b) => a - b);
  const version = measured.map(({ model }) => `${model.name} ${model.last.id}`).join("\n");
  showEmpty($("curves"), measured.length === 0);
  keepFigures("curve:", measured.length ? CURVES.map((curve) => `curve:${curve.field}`) : []);
  if (measured.length === 0) $("series").replaceChildren();
  if (measured.length === 0 || version === updateCurves.version) return;
  updateCurves.version = version;
  $("series").replaceChildren(...measured.map(({ model, index }) => {
    return html("span", {}, seriesSample(index), `${model.name} · ${model.policy}`);
  }));
  for (const curve of CURVES) {
    const series = measured.map(({ model, index }) => {
      const means = layerMean(model.last, curve.field);
      return { name: model.name, index, values: contexts.map((n) => means[model.last.context.indexOf(n)]) };
    });
    const fig = figure($("curves"), `curve:${curve.field}`);
    fig.update(version, (width) => {
      fig.setCaption(curve.title, curve.about);
      fig.svg.setAttribute("aria-label", `${curve.title} by context length, mean of all layers, for ` +
        `${series.map((s) => s.name).join(", ")}. Left and right arrow keys read single points.`);
      fig.setTable(curve.title, ["Keys from", ...series.map((s) => s.name)],
        contexts.map((n, i) => [context(n), ...series.map((s) => curve.format(s.values[i]))]));
      drawCurve(fig, curve, series, contexts, width);
    });
  }
}

function showEmpty(parent, empty) {
  const old = parent.querySelector(".empty");
  if (old && !empty) old.remove();
  if (old || !empty) return;
  parent.append(html("p", { class: "empty" }, "No long prompt has been measured yet. Send one: ",
    html("code", {}, "acuity generate --prompt-file long.txt --report")));
}

// ---- now: throughput and KV, from the differences between two answers

const counters = new Map(); // model -> [{time, computed, generated}], the counters at each answer

function ratesOf(model, time) {
  const samples = counters.get(model.name) || [];
  const before = samples[samples.length - 1];
  if (before && model.computed_tokens < before.computed) samples.length = 0; // the daemon is a new one
  samples.push({ time, computed: model.computed_tokens, generated: model.generated_tokens });
  if (samples.length > HISTORY + 1) samples.shift();
  counters.set(model.name, samples);
  return samples.slice(1).map((sample, i) => {
    const span = Math.max(sample.time - samples[i].time, 1e-3);
    return { computed: (sample.computed - samples[i].computed) / span,
      generated: (sample.generated - samples[i].generated) / span };
  });
}

function card(model, index) {
  const value = () => html("dd", {}, "–");
  const tile = (name, dd, ...more) => html("div", {}, html("dt", {}, name), dd, ...more);
  const parts = { computed: value(), generated: value(), requests: value(), kv: value(),
    meter: html("meter", { min: 0, max: 1, value: 0, "aria-label": "KV cache in use" }),
    area: svg("path", { class: "area" }), line: svg("path", { class: "curve" }) };
  parts.area.style.fill = parts.line.style.stroke = seriesColour(index);
  parts.line.style.strokeWidth = "1.5";
  parts.line.setAttribute("vector-effect", "non-scaling-stroke");
  parts.root = html("article", { class: "card", "data-model": model.name },
    html("header", {}, html("h3", {}, model.name), html("span", { class: "policy" }, model.policy),
      html("span", { class: "about" },
        `${model.architecture}, ${model.num_layers} layers, ${model.dtype}, KV ${model.kv_dtype}, ${context(model.max_context)} context`)),
    html("dl", { class: "tiles" }, tile("Computed", parts.computed), tile("Generated", parts.generated),
      tile("Running / waiting", parts.requests), tile("KV in use", parts.kv, parts.meter)),
    svg("svg", { viewBox: `0 0 ${HISTORY} 30`, height: 40, preserveAspectRatio: "none", "aria-hidden": "true" },
      parts.area, parts.line));
  return parts;
}

function updateNow(models, time) {
  const key = models.map((model) => [model.name, model.policy].join(" ")).join("\n");
  if (key !== updateNow.key) {
    updateNow.key = key;
    updateNow.cards = models.map(card);
    $("now").replaceChildren(...updateNow.cards.map((parts) => parts.root));
  }
  models.forEach((model, index) => {
    const parts = updateNow.cards[index];
    const rates = ratesOf(model, time);
    const last = rates[rates.length - 1] || {};
    const unit = (text, name) => [text, html("small", {}, name)];
    parts.computed.replaceChildren(...unit(rate(last.computed), "tokens/s"));
    parts.generated.replaceChildren(...unit(rate(last.generated), "tokens/s"));
    parts.requests.textContent = `${model.running} / ${model.waiting}`;
    const used = model.held_blocks / model.num_blocks;
    parts.kv.textContent = `${(100 * used).toFixed(used < 0.1 ? 1 : 0)} %`;
    parts.meter.value = used;
    parts.meter.textContent = parts.kv.textContent;
    const top = Math.max(1, ...rates.map((r) => r.computed));
    const points = rates.map((r, i) => `${HISTORY - rates.length + 1 + i} ${(29 - 27 * (r.computed / top)).toFixed(2)}`);
    const start = HISTORY - rates.length + 1;
    parts.line.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
    parts.area.setAttribute("d", points.length > 1 ? `M${start} 30L${points.join("L")}L${HISTORY} 30Z` : "");
  });
}

// ---- recent prompts

function updateRecent(models) {
  const rows = models.flatMap((model) => model.recent.map((request) => ({ model, request })));
  rows.sort((a, b) => b.request.time - a.request.time);
  const version = rows.map(({ request }) => request.id).join(" ");
  if (version === updateRecent.version) return;
  updateRecent.version = version;
  const body = $("recent").tBodies[0];
  const cell = (text) => html("td", {}, text);
  const number = (text) => html("td", { class: "number" }, text);
  if (rows.length === 0) {
    body.replaceChildren(html("tr", {}, html("td", { colspan: 13 }, "None yet.")));
    return;
  }
  body.replaceChildren(...rows.map(({ model, request: r }) => html("tr", {}, cell(clock(r.time)),
    cell(`${model.name} · ${model.policy}`), number(String(r.id)), number(whole(r.prompt_tokens)),
    number(whole(r.cached_tokens)), number(whole(r.completion_tokens)), cell(r.finish_reason),
    number(seconds(r.time_to_first_token_seconds)), number(seconds(r.total_seconds)), number(context(r.longest.context)),
    number(fixed(3)(r.longest.normalized_entropy)), number(fixed(1)(r.longest.effective_context)),
    number(fixed(3)(r.longest.max_probability)))));
}

// ---- the loop

let paused = false;
let lastAnswer = null;

function say(state, text) {
  if ($("state").textContent === text) return;
  $("state").dataset.state = state;
  $("state").textContent = text;
}

async function poll() {
  try {
    const answer = await fetch("attention.json", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const data = await answer.json();
    for (const model of data.models) model.last = model.last && withoutFirstRow(model.last);
    updateNow(data.models, data.time);
    updateHeatMaps(data.models);
    updateCurves(data.models);
    updateRecent(data.models);
    lastAnswer = data.time;
    say("live", "live");
  } catch (error) {
    console.error(error);
    say("lost", lastAnswer ? `no answer since ${clock(lastAnswer)}` : "no answer");
  }
}

async function loop() {
  for (;;) {
    if (!paused && document.visibilityState === "visible") await poll();
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  say(paused ? "wait" : "live", paused ? "paused" : "live");
});
drawLegend("0, one key", "1, flat");
loop();
