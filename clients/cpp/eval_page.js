// Draws the results that the page holds, with figure.js. Text of the results goes into the page as text nodes or
// attributes, never as HTML.

const MARGIN = 0.06; // of a linear axis, around its values
const FEW = 16; // a point of so many times fewer observations than another does not stretch the axis

const results = JSON.parse($("results").textContent);
const labels = results.models.map((arm) => arm.label);
const tokens = (n) => (n >= 1024 && n % 1024 === 0 ? `${n / 1024}k` : String(n));
const trim = (x) => String(Number(x.toPrecision(6)));

// ---- axes: {at(value): 0 to 1, ticks: values, text(tick)}

function logAxis(low, high, step) {
  const from = Math.floor(Math.log2(low)), to = Math.max(from + 1, Math.ceil(Math.log2(high)));
  const ticks = [];
  for (let power = from; power <= to; power += step) ticks.push(2 ** power);
  return { at: (v) => (Math.log2(Math.max(v, 2 ** from)) - from) / (to - from), ticks, text: tokens };
}

// Ticks at 1, 2 or 5 times a power of ten, about `count` of them.
function linearAxis(low, high, count) {
  const rough = Math.max(high - low, 1e-9) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; ++i) ticks.push(i * step);
  return { at: (v) => (v - low) / Math.max(high - low, 1e-9), ticks, text: trim };
}

function xAxis(curve, all, width) {
  const low = Math.min(...all), high = Math.max(...all);
  if (curve.x_scale !== "log") return { ...linearAxis(Math.min(low, 0), high, width / 80), text: tokens };
  const axis = logAxis(low, high, 1);
  const from = Math.log2(low), span = Math.max(1, Math.log2(high) - from);
  const every = Math.ceil(axis.ticks.length / Math.max(2, Math.floor(width / 44)));
  return { ...axis, at: (v) => (Math.log2(v) - from) / span,
    ticks: axis.ticks.filter((v, i) => v >= low && v <= high && (axis.ticks.length - 1 - i) % every === 0) };
}

function yAxis(curve, points) {
  if (curve.y_scale === "share") return linearAxis(0, 1, 4);
  const most = Math.max(...points.map((p) => p.count));
  const known = points.filter((p) => p.count >= most / FEW);
  const low = Math.min(...known.map((p) => p.low)), high = Math.max(...known.map((p) => p.high));
  if (curve.y_scale === "log") return logAxis(Math.max(Math.min(low, 1), 1 / 1024), Math.max(high, 2), 2);
  const margin = MARGIN * Math.max(high - low, 1e-3);
  return linearAxis(low - margin, high + margin, 5);
}

// ---- a curve

// The polygon between the lows and the highs, and the line through the values.
function drawSeries(group, series, x, y) {
  const at = (p, value) => `${x(p.x).toFixed(1)} ${y(value).toFixed(1)}`;
  const highs = series.points.map((p) => at(p, p.high)), lows = series.points.map((p) => at(p, p.low)).reverse();
  const band = svg("path", { class: "area", d: `M${[...highs, ...lows].join("L")}Z` });
  const line = svg("path", { class: "curve", d: `M${series.points.map((p) => at(p, p.value)).join("L")}`,
    "stroke-dasharray": seriesDash(series.index) });
  band.style.fill = line.style.stroke = seriesColour(series.index);
  group.append(band, line);
  for (const p of series.points) {
    const bar = svg("line", { x1: x(p.x), x2: x(p.x), y1: y(p.low), y2: y(p.high), "stroke-width": 1.2 });
    const dot = svg("circle", { cx: x(p.x), cy: y(p.value), r: 2.6 });
    bar.style.stroke = dot.style.fill = seriesColour(series.index);
    group.append(bar, dot);
  }
}

function drawAxes(fig, curve, box, xs, ys, x, y) {
  const axes = svg("g");
  for (const tick of ys.ticks) {
    axes.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: box.left - 6, y: y(tick) + 4, "text-anchor": "end" }, ys.text(tick)));
  }
  for (const tick of xs.ticks) {
    axes.append(svg("text", { x: x(tick), y: box.bottom + 16, "text-anchor": "middle" }, xs.text(tick)));
  }
  axes.append(svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 32, "text-anchor": "middle" }, curve.x_label));
  fig.svg.append(axes);
}

// Where training ended: what lies to the right is extrapolation.
function drawTrained(fig, box, x, contexts) {
  const trained = results.options.trained_length;
  if (!isNumber(trained) || trained < contexts[0] || trained > contexts[contexts.length - 1]) return;
  const last = x(trained) > (box.left + box.right) / 2;
  fig.svg.append(svg("line", { class: "flat", x1: x(trained), x2: x(trained), y1: box.top, y2: box.bottom }),
    svg("text", { x: x(trained) + (last ? -5 : 5), y: box.bottom - 0.35 * (box.bottom - box.top), "text-anchor": last ? "end" : "start" },
      "trained to here"));
}

function drawCurve(fig, curve, series, contexts, width) {
  const height = 240;
  const box = { left: 46, right: width - 12, top: 8, bottom: height - 36 };
  fig.setHeight(width, height);
  const xs = xAxis(curve, contexts, box.right - box.left), ys = yAxis(curve, series.flatMap((s) => s.points));
  const x = (v) => box.left + xs.at(v) * (box.right - box.left);
  const y = (v) => box.bottom - ys.at(v) * (box.bottom - box.top);
  drawAxes(fig, curve, box, xs, ys, x, y);
  drawTrained(fig, box, x, contexts);
  const clip = `clip-${curve.id}`;
  fig.svg.append(svg("clipPath", { id: clip }, svg("rect", { x: box.left - 4, y: box.top - 4,
    width: box.right - box.left + 8, height: box.bottom - box.top + 8 })));
  for (const s of series) {
    const group = svg("g", { "clip-path": `url(#${clip})` });
    drawSeries(group, s, x, y);
    fig.svg.append(group);
  }
  const cursor = svg("line", { class: "cursor", y1: box.top, y2: box.bottom, visibility: "hidden" });
  fig.svg.append(cursor);
  const nearest = (px) => contexts.reduce((best, n, i) =>
    (Math.abs(x(n) - px) < Math.abs(x(contexts[best]) - px) ? i : best), 0);
  fig.setCursor(contexts.length, 1, (px) => [nearest(px), 0], (column) => {
    const n = contexts[column];
    cursor.setAttribute("x1", x(n));
    cursor.setAttribute("x2", x(n));
    cursor.setAttribute("visibility", "visible");
    fig.output.textContent = `${curve.x_label} ${n}: ` + series.map((s) => `${s.label} ${cell(curve, s, n)}`).join("; ");
  });
}

function cell(curve, series, n) {
  const point = series.points.find((p) => p.x === n);
  const number = fixed(curve.digits);
  if (!point) return "–";
  return point.low === point.high ? number(point.value)
    : `${number(point.value)} [${number(point.low)}, ${number(point.high)}]`;
}

function showCurve(curve) {
  const series = curve.series.map((s) => ({ ...s, index: labels.indexOf(s.label) })).filter((s) => s.points.length);
  const contexts = [...new Set(series.flatMap((s) => s.points.map((p) => p.x)))].sort((a, b) => a - b);
  if (contexts.length === 0) return;
  const fig = new Figure($("curves"), curve.id);
  fig.update(curve.id, (width) => {
    fig.setCaption(curve.title, curve.about);
    fig.svg.setAttribute("aria-label", `${curve.title}, ${curve.about}, by ${curve.x_label}, for ` +
      `${series.map((s) => s.label).join(", ")}. Left and right arrow keys read single points.`);
    fig.setTable(curve.title, [curve.x_label, ...series.map((s) => s.label)],
      contexts.map((n) => [String(n), ...series.map((s) => cell(curve, s, n))]));
    drawCurve(fig, curve, series, contexts, width);
  });
}

// ---- a heat map

function showMap(map) {
  const number = fixed(3);
  const columns = map.columns.map((name) => (/^\d+$/.test(name) ? tokens(Number(name)) : name));
  const means = map.columns.map((_, column) => mean(map.cells.map((row) => row[column])));
  const fig = new Figure($("maps"), map.id);
  fig.update(map.id, (width) => {
    fig.setCaption(map.title, map.about);
    fig.svg.setAttribute("aria-label", `Heat map of ${map.about}, ${map.title}: ${map.row_label} by ` +
      `${map.column_label}. Arrow keys read single cells.`);
    fig.setTable(map.title, [map.row_label, ...columns],
      [...map.cells.map((row, i) => [map.rows[i], ...row.map(number)]), ["all", ...means.map(number)]]);
    drawHeatMap(fig, { ...map, columns, means, label: map.column_label }, width, (row, column) =>
      `${map.row_label} ${map.rows[row]}, ${map.column_label} ${map.columns[column]}: ${number(map.cells[row][column])}`);
  });
}

// ---- the page

function showModels() {
  const rows = results.models.flatMap((arm) => arm.models.map((model) => [arm.label, model.name, model.attention_policy,
    model.architecture, model.num_layers, model.num_heads, model.dtype, model.max_context, model.parameters]));
  const head = ["Line", "Model", "Policy", "Architecture", "Layers", "Heads", "Computed in", "Context", "Parameters"];
  $("models").append(html("thead", {}, html("tr", {}, ...head.map((text, i) => html("th", { scope: "col",
    class: isNumber(rows[0][i]) ? "number" : "" }, text)))),
    html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map((value) =>
      html("td", isNumber(value) ? { class: "number" } : {}, isNumber(value) ? whole(value) : value))))));
  $("options").textContent = Object.entries(results.options).map(([name, value]) =>
    `${name.replaceAll("_", " ")} ${Array.isArray(value) ? value.join(", ") : value}`).join(" · ");
}

function policyOf(arm) {
  const policies = [...new Set(arm.models.map((model) => model.attention_policy))].join(", ");
  return arm.models.length > 1 ? `${policies}, ${arm.models.length} models` : policies;
}

document.title = $("title").textContent = `Acuity: ${results.title}`;
$("about").textContent = `acuity eval ${results.kind}`;
$("bars").textContent = `Bars and bands: ${results.bars}.`;
$("series").append(...results.models.map((arm, index) => html("li", {}, seriesSample(index),
  `${arm.label} · ${policyOf(arm)}`)));
$("summary").append(...results.summary.map((line) => html("p", {}, line)));
results.curves.forEach(showCurve);
$("maps-section").hidden = results.maps.length === 0;
if (results.maps.length) drawLegend(results.maps[0].low, results.maps[0].high);
results.maps.forEach(showMap);
showModels();
