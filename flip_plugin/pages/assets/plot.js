
// --- What charts are made of: scales, grid, lines, legend, card, tip ---------------------
// A series is an object with `name` and `colour` (of .s0, .f0, .b0 in base.css, or "t" for the text's own).

// Round numbers from at or below `low` to at or above `high`, about `count` of them.
function niceTicks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const size = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const ticks = [], first = Math.floor(low / size + 1e-9);
  // Bounded, since a size below the precision of its numbers would never get to the end.
  for (let i = 0; i < 3 * count; i++) {
    ticks.push(+((first + i) * size).toPrecision(12));
    if (ticks[i] >= high - size * 1e-6) break;
  }
  return ticks;
}

// Labels that differ, even where the ticks are closer than the unit's usual digits.
function tickLabels(ticks, show) {
  const labels = ticks.map(show);
  return new Set(labels).size === labels.length ? labels : ticks.map((tick) => String(+tick.toPrecision(6)));
}

// Values from `low` to `high` to pixels from `start` to `end`; in the middle where there is one value alone.
const linear = (low, high, start, end) => (value) => start + (end - start) * (high > low ? (value - low) / (high - low) : 0.5);

// Where a plot begins, right of the y-axis's labels.
const leftOf = (labels) => 12 + 6.3 * Math.max(...labels.map((label) => label.length));

// The y-axis: a line and a label for each tick.
const yGrid = (ticks, labels, left, right, y) => ticks.flatMap((tick, i) => [
  make("line", { class: tick === 0 ? "grid zero" : "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }),
  make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, labels[i])]);

// A line through [place, value] pairs, with a gap where the value is missing.
function path(points, x, y) {
  let drawn = "", pen = false;
  for (const [at, value] of points) {
    if (!known(value)) { pen = false; continue; }
    drawn += `${pen ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = true;
  }
  return drawn;
}

const newCursor = (top, bottom) => make("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
function moveCursor(cursor, x) {
  cursor.setAttribute("visibility", known(x) ? "visible" : "hidden");
  if (known(x)) ["x1", "x2"].forEach((name) => cursor.setAttribute(name, x));
}
const closest = (wanted, among, x = (v) => v) => among.reduce((best, at) => Math.abs(x(at) - wanted) < Math.abs(x(best) - wanted) ? at : best, among[0]);

const keyOf = (s) => make("span", { class: `key b${s.colour}${s.eval ? " dot" : ""}${s.dashed || s.total ? " stroke" : ""}` });
function legendOf(series, ...more) {
  const keys = [...series.map((s) => make("li", null, keyOf(s), s.name)), ...more];
  return keys.length ? make("ul", { class: "legend" }, keys) : null;
}

// The card around a plot: title, what stands beside it, note, legend, plot, and a tip that is hidden at first.
function chartCard(chart, kind, { beside, note = chart.note, legend, svg }) {
  return make("figure", { class: `card chart ${kind}` },
    make("div", { class: "head" }, make("h4", null, chart.title), beside),
    note ? make("p", { class: "note" }, note) : null, legend, svg,
    make("div", { class: "tip", hidden: true, role: "status" }));
}

// A row of a tip: the series and its value as text.
const tipRow = (s, text) => make("div", null, known(s.colour) ? keyOf(s) : null, s.name, make("span", { class: "v" }, text));

// The card's tip at (x, y) from its corner: beside the place, on the side where there is more room; below y, or above.
function showTip(card, x, y, title, rows, above = false) {
  const tip = card.querySelector(".tip");
  tip.replaceChildren(make("b", null, title), ...rows);
  tip.hidden = false;
  const left = x > card.clientWidth / 2 ? x - 14 - tip.offsetWidth : x + 14;
  tip.style.left = `${Math.max(4, Math.min(left, card.clientWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${Math.max(4, above ? y - tip.offsetHeight : y)}px`;
}
const hideTip = (card) => { card.querySelector(".tip").hidden = true; };
