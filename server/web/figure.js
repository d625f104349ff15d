// What pages of figures share: elements, numbers, colours, a figure with a cursor and a table, a heat map. No
// dependencies. Text goes into a page as text nodes or attributes, never as HTML.
"use strict";

const SERIES = 6; // colours; dashes tell the rest apart
const DASHES = ["", "7 4", "2 4", "10 3 2 3"];
// Normalised entropy 0 to 1; luminance grows with it.
const RAMP = ["#14103a", "#46187a", "#8b2577", "#cf4259", "#f7834f", "#fbbf74", "#fdf3c2"];

const $ = (id) => document.getElementById(id);

// ---- elements

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// ---- numbers

const isNumber = (x) => typeof x === "number" && Number.isFinite(x);
const fixed = (digits) => (x) => (isNumber(x) ? x.toFixed(digits) : "–");
const whole = (x) => (isNumber(x) ? Math.round(x).toLocaleString("en-US") : "–");
const context = (n) => (n < 1024 ? String(n) : `${n / 1024}k`);
const mean = (values) => {
  const numbers = values.filter(isNumber);
  return numbers.length ? numbers.reduce((a, b) => a + b, 0) / numbers.length : null;
};

// ---- colours

function colour(value) {
  const at = Math.min(Math.max(value, 0), 1) * (RAMP.length - 1);
  const index = Math.min(Math.floor(at), RAMP.length - 2);
  const part = (hex, channel) => parseInt(hex.slice(1 + 2 * channel, 3 + 2 * channel), 16);
  const mixed = [0, 1, 2].map((channel) => {
    const from = part(RAMP[index], channel);
    return Math.round(from + (part(RAMP[index + 1], channel) - from) * (at - index));
  });
  return `rgb(${mixed.join(",")})`;
}
const inkOn = (value) => (value > 0.6 ? "#1b1b26" : "#ffffff");

const seriesColour = (index) => `var(--series-${index % SERIES})`;
const seriesDash = (index) => DASHES[Math.floor(index / SERIES + index) % DASHES.length];

// A piece of the series' line, for a legend.
function seriesSample(index) {
  const line = svg("line", { class: "curve", x1: 1, x2: 31, y1: 6, y2: 6, "stroke-dasharray": seriesDash(index) });
  line.style.stroke = seriesColour(index);
  return svg("svg", { viewBox: "0 0 32 12", "aria-hidden": "true" }, line);
}

// ---- figures: a caption, an <svg> drawn for its width, a read-out, a table

// One figure in `parent`, found again by `key`. update(state, draw): draws when state.version or the width changes.
class Figure {
  constructor(parent, key) {
    this.svg = svg("svg", { tabindex: "0", role: "img" });
    this.caption = html("figcaption");
    this.output = html("output", { "aria-live": "polite" });
    this.scroll = html("div", { class: "scroll", tabindex: "0", role: "region" });
    this.details = html("details", {}, html("summary", {}, "Numbers"), this.scroll);
    this.root = html("figure", { "data-key": key }, this.caption, this.svg, this.output, this.details);
    parent.append(this.root);
    new ResizeObserver(() => this.redraw()).observe(this.root);
  }
  update(version, draw) {
    if (version === this.version) return;
    this.version = version;
    this.draw = draw;
    this.drawnWidth = 0;
    this.output.textContent = "Point at it, or use the arrow keys, for single values.";
    this.redraw();
  }
  redraw() {
    const width = Math.floor(this.svg.getBoundingClientRect().width);
    if (!this.draw || width < 80 || width === this.drawnWidth) return;
    this.drawnWidth = width;
    this.svg.replaceChildren();
    this.draw(width);
  }
  setHeight(width, height) {
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("height", height);
  }
  setCaption(title, about) {
    this.caption.replaceChildren(html("h3", {}, title), html("span", { class: "about" }, about));
  }
  setTable(label, head, rows) {
    this.scroll.setAttribute("aria-label", label);
    this.scroll.replaceChildren(html("table", {},
      html("thead", {}, html("tr", {}, ...head.map((text, i) =>
        html("th", i ? { scope: "col", class: "number" } : { scope: "col" }, text)))),
      html("tbody", {}, ...rows.map(([name, ...cells]) => html("tr", {}, html("th", { scope: "row" }, name),
        ...cells.map((text) => html("td", { class: "number" }, text)))))));
  }
  // The pointer and the arrow keys move one cursor over columns x rows; show(column, row) says what is there.
  setCursor(columns, rows, locate, show) {
    let at = null;
    const move = (column, row) => {
      at = [Math.min(Math.max(column, 0), columns - 1), Math.min(Math.max(row, 0), rows - 1)];
      show(...at);
    };
    this.svg.onpointermove = (event) => {
      const box = this.svg.getBoundingClientRect();
      move(...locate(event.clientX - box.left, event.clientY - box.top));
    };
    this.svg.onkeydown = (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      move(...(at ? [at[0] + step[0], at[1] + step[1]] : [columns - 1, 0]));
    };
  }
}

// ---- a heat map of values 0 to 1

// map: {rows, columns: labels, cells: [row][column], means: [column] or null, label: of the columns}; say(row, column) is
// the read-out of a cell.
function drawHeatMap(fig, map, width, say) {
  const rows = map.rows.length;
  const left = 34, top = 2, meanHeight = map.means ? 20 : 0, gap = map.means ? 8 : 0, axis = 34;
  const cellHeight = Math.max(7, Math.min(13, Math.floor(390 / rows)));
  const cellWidth = (width - left) / map.columns.length;
  const bottom = top + rows * cellHeight;
  fig.setHeight(width, bottom + gap + meanHeight + axis);

  const cells = svg("g");
  map.cells.forEach((values, row) => values.forEach((value, column) => {
    if (!isNumber(value)) return;
    cells.append(svg("rect", { x: left + column * cellWidth + 0.5, y: top + row * cellHeight + 0.5, rx: 1.5,
      width: Math.max(1, cellWidth - 1), height: cellHeight - 1, fill: colour(value) }));
  }));
  const every = rows * cellHeight < 120 ? Math.ceil(rows / 4) : Math.max(1, Math.ceil(rows / 8));
  const names = svg("g", { "text-anchor": "end" });
  map.rows.forEach((name, row) => {
    if (row % every && row !== rows - 1) return;
    if (row !== rows - 1 && rows - 1 - row < every / 2) return;
    names.append(svg("text", { x: left - 6, y: top + (row + 0.5) * cellHeight + 4 }, name));
  });
  const strip = svg("g", { "text-anchor": "middle" });
  map.columns.forEach((name, column) => {
    const x = left + column * cellWidth, value = map.means && map.means[column];
    if (isNumber(value)) {
      strip.append(svg("rect", { x: x + 0.5, y: bottom + gap, rx: 2, width: Math.max(1, cellWidth - 1),
        height: meanHeight, fill: colour(value) }));
      if (cellWidth > 26) {
        const text = svg("text", { x: x + cellWidth / 2, y: bottom + gap + 14 }, value.toFixed(2).replace(/^0/, ""));
        text.style.fill = inkOn(value);
        strip.append(text);
      }
    }
    if (cellWidth > 26 || column % 2 === 0) {
      strip.append(svg("text", { x: x + cellWidth / 2, y: bottom + gap + meanHeight + 14 }, name));
    }
  });
  if (map.means) names.append(svg("text", { x: left - 6, y: bottom + gap + 14 }, "all"));
  const label = svg("text", { x: left + (width - left) / 2, y: bottom + gap + meanHeight + 30,
    "text-anchor": "middle" }, map.label);
  const cursor = svg("rect", { class: "cursor", rx: 2, width: cellWidth, height: cellHeight, visibility: "hidden" });
  fig.svg.append(cells, names, strip, label, cursor);

  const locate = (x, y) => [Math.floor((x - left) / cellWidth), Math.floor((y - top) / cellHeight)];
  fig.setCursor(map.columns.length, rows, locate, (column, row) => {
    cursor.setAttribute("x", left + column * cellWidth);
    cursor.setAttribute("y", top + row * cellHeight);
    cursor.setAttribute("visibility", "visible");
    fig.output.textContent = say(row, column);
  });
}

// ---- the colours of heat maps

function drawLegend(low, high) {
  const stops = RAMP.map((stop, i) => svg("stop", { offset: i / (RAMP.length - 1), "stop-color": stop }));
  $("legend").append(low,
    svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none" },
      svg("defs", {}, svg("linearGradient", { id: "ramp" }, ...stops)),
      svg("rect", { width: 100, height: 10, fill: "url(#ramp)" })), high);
}
