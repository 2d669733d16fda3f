// --- Scales, frames and the tip that follows the pointer ---------------------------------
const tickLabel = (unit) => (value) => unit === "share" ? `${+(100 * value).toPrecision(3)}%` : plain(value);

function valuesOf(points, refs) {
  const all = points.filter(known).flatMap((p) => [p.v, p.low, p.high]).filter(known);
  return [...all, ...(refs || []).map((ref) => ref.value)];
}
// From 0 where that costs little, else around the values.
function reachOf(values, fromZero) {
  let low = Math.min(...values), high = Math.max(...values);
  if (fromZero || (low >= 0 && low < 0.3 * high)) low = Math.min(0, low);
  if (low === high) { low -= 0.05; high += 0.05; }
  const ticks = niceTicks(low, high, 5);
  return [ticks[0], ticks[ticks.length - 1], ticks];
}

function tell(figure, parts, event) {
  const tip = figure.querySelector(".tip"), box = figure.getBoundingClientRect();
  tip.replaceChildren(...parts);
  tip.hidden = false;
  const x = event.clientX - box.left, width = tip.offsetWidth;
  tip.style.left = `${Math.max(4, Math.min(x + 14, box.width - width - 4))}px`;
  tip.style.top = `${Math.max(4, event.clientY - box.top - tip.offsetHeight - 12)}px`;
}
function tipRows(title, rows) {
  return [make("b", null, title), ...rows.map(([colour, name, p, unit]) => make("div", null,
    known(colour) ? make("span", { class: `key b${colour}` }) : null, name,
    make("span", { class: "v" }, pointText(p, unit))))];
}
function pointText(p, unit) {
  if (!known(p)) return "none";
  const show = units[unit], parts = [p.paper ? p.note : show(p.v)];
  if (known(p.low)) parts.push(`[${show(p.low)}, ${show(p.high)}]`);
  if (known(p.invalid)) parts.push(`${percent(p.invalid)}% invalid`);
  if (known(p.n)) parts.push(`n=${p.n}`);
  return parts.join("  ");
}
const bar = (x, low, high, cap, colour) => make("path", { class: `whisker s${colour}`, d: `M${x} ${low}V${high}M${x - cap} ${low}H${x + cap}M${x - cap} ${high}H${x + cap}` });

function legendOf(series, tints, refs) {
  const keys = series.length > 1 ? series.map((s, i) => make("li", null, make("span", { class: `key b${tints[i]}${s.dashed ? " stroke" : ""}` }), s.name)) : [];
  keys.push(...(refs || []).map((ref) => make("li", null, make("span", { class: "key dots" }), `${ref.name} ${percent(ref.value)}%`)));
  return keys.length ? make("ul", { class: "legend" }, keys) : null;
}
function figureOf(chart, legend, svg) {
  return make("figure", { class: `card chart${chart.wide ? " wide-chart" : ""}${chart.kind === "heat" && chart.columns.length <= 5 ? " small-chart" : ""}` },
    make("div", { class: "head" }, make("h4", null, chart.title)), chart.note ? make("p", { class: "note" }, chart.note) : null,
    legend, svg, make("div", { class: "tip", hidden: true }));
}
function refLines(chart, parts, x1, x2, y) {
  for (const ref of chart.refs || []) parts.push(make("line", { class: "ref", x1, x2, y1: y(ref.value), y2: y(ref.value) }));
}
function gridLines(parts, ticks, labels, x1, x2, y) {
  ticks.forEach((tick, i) => parts.push(make("line", { class: tick === 0 ? "grid zero" : "grid", x1, x2, y1: y(tick), y2: y(tick) }),
    make("text", { x: x1 - 6, y: y(tick) + 4, "text-anchor": "end" }, labels[i])));
}
