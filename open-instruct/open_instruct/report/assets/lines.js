
// --- How curves and stacks are drawn -----------------------------------------------------
// The mean of the known values up to `reach` places to either side. Not by differences of running
// sums: one huge value would swallow all that come after it.
function average(values, reach) {
  return values.map((value, i) => {
    if (!known(value)) return null;
    let sum = 0, count = 0;
    for (let k = Math.max(0, i - reach); k <= Math.min(values.length - 1, i + reach); k++) if (known(values[k])) { sum += values[k]; count++; }
    return sum / count;
  });
}

// Where each column of a stack starts among the steps, and the averages of values over columns.
const STACK_COLUMNS = 160;
const perColumn = (count) => Math.ceil(count / STACK_COLUMNS);
const stackBins = (count) => [...Array(count).keys()].filter((i) => i % perColumn(count) === 0);
const binned = (values, bins) => bins.map((start) => mean(values.slice(start, start + perColumn(values.length)).map((v) => v || 0)));

// Half of the values lie between two quarters; a value further out than 6 times their distance is a spike.
function withoutSpikes(values) {
  const sorted = [...values].sort((a, b) => a - b), at = (share) => sorted[Math.floor(share * (sorted.length - 1))];
  const reach = 6 * (at(0.75) - at(0.25));
  if (sorted.length < 20 || reach <= 0) return [sorted[0], sorted[sorted.length - 1]];
  const kept = sorted.filter((v) => v >= at(0.25) - reach && v <= at(0.75) + reach);
  return [kept[0], kept[kept.length - 1]];
}

function yRange(chart, series) {
  const all = series.flatMap((s) => s.values).filter(known);
  if (chart.kind === "stack") {
    const bins = stackBins(series[0].values.length);
    const sums = bins.map(() => 0), tops = [];
    for (const s of series) binned(s.values, bins).forEach((v, i) => { if (s.total) tops.push(v); else sums[i] += v; });
    const heights = [...sums, ...tops].sort((a, b) => a - b);
    return [0, (view.cut ? withoutSpikes(heights)[1] : heights[heights.length - 1]) || 1];
  }
  let [low, high] = view.cut ? withoutSpikes(all) : [Math.min(...all), Math.max(...all)];
  if (["share", "seconds", "count"].includes(chart.unit) && low >= 0) low = 0;
  if (low === high) { const pad = Math.abs(low) * 0.1 || (chart.unit === "share" ? 0.05 : 1); high += pad; if (low) low -= pad; }
  return [low, high];
}

// The frame of a chart: scales, grid and labels. `reach` is [first, last] on the x-axis.
function frame(svg, ticks, labels, reach, xLabel) {
  const width = svg.clientWidth || 340, height = svg.clientHeight || 168;
  const left = leftOf(labels), right = width - 10, top = 10, bottom = height - 22;
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const x = linear(...reach, left, right), inside = linear(low, high, bottom, top);
  const y = (value) => inside(Math.min(high, Math.max(low, value)));
  const parts = yGrid(ticks, labels, left, right, y), inSteps = view.axis === "steps";
  const marks = reach[1] > reach[0] ? niceTicks(...reach, width > 600 ? 10 : 6).filter((t) => t >= reach[0] && t <= reach[1] && (!inSteps || Number.isInteger(t))) : [reach[0]];
  marks.forEach((tick) => parts.push(make("text", { x: x(tick), y: height - 6, "text-anchor": x(tick) > right - 14 ? "end" : "middle" }, xLabel(tick))));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return { x, y, left, right, top, bottom, width, parts, low, high };
}

// Steps of a stack are columns, since a slope between two would show time that nobody spent;
// of a long run, each is the average over as many steps as fit.
function drawStack(series, at, { x, y, left, right, parts }) {
  const bins = stackBins(at.length);
  const between = (i) => (x(at[bins[i] - 1]) + x(at[bins[i]])) / 2;
  const column = (i) => [i ? between(i) : left, i + 1 < bins.length ? between(i + 1) : right].map((to) => to.toFixed(1));
  let base = bins.map(() => 0);
  for (const s of series) {
    const heights = binned(s.values, bins);
    if (s.total) {
      parts.push(make("path", { class: "l st thin", d: heights.map((v, i) => `M${column(i)[0]} ${y(v).toFixed(1)}H${column(i)[1]}`).join("") }));
      continue;
    }
    const top = heights.map((v, i) => base[i] + v);
    const up = top.map((v, i) => `L${column(i)[0]} ${y(v).toFixed(1)}H${column(i)[1]}`).join("").replace("L", "M");
    const down = base.map((v, i) => `L${column(i)[1]} ${y(v).toFixed(1)}H${column(i)[0]}`).reverse().join("");
    parts.push(make("path", { class: `area f${s.colour}`, d: `${up}${down}Z` }));
    base = top;
  }
}

function drawLine(s, at, { x, y, parts }) {
  const points = at.map((a, i) => [a, s.values[i]]);
  if (s.eval) {
    const seen = points.filter(([, v]) => known(v));
    parts.push(make("path", { class: `l s${s.colour}${several ? " dashed" : ""}`, d: path(seen, x, y) }));
    if (seen.length <= 60) seen.forEach(([a, v]) => parts.push(make("circle", { class: `f${s.colour} dotted`, cx: x(a), cy: y(v), r: several ? 3 : 3.6 })));
    return;
  }
  const reach = Math.round(at.length * view.smooth / 200), smooth = reach > 0 && at.length >= 20;
  const faint = smooth ? (at.length > 500 || several ? " faint fainter" : " faint") : "";
  parts.push(make("path", { class: `l s${s.colour}${faint}`, d: path(points, x, y) }));
  if (smooth) {
    const averaged = average(s.values, reach);
    parts.push(make("path", { class: `l s${s.colour}`, d: path(at.map((a, i) => [a, averaged[i]]), x, y) }));
  }
  points.forEach(([a, v], i) => { // a value without neighbours has no line: give it a dot
    if (known(v) && !known(s.values[i - 1]) && !known(s.values[i + 1])) parts.push(make("circle", { class: `f${s.colour}`, cx: x(a), cy: y(v), r: 3 }));
  });
}

// What lies outside the frame is drawn on its edge, with a note of its value.
function spikeNotes(series, { y, left, right, top, bottom, parts, low, high }, show) {
  const all = series.flatMap((s) => s.values).filter(known), highest = Math.max(...all), lowest = Math.min(...all);
  if (highest > high) parts.push(make("text", { class: "spike", x: right, y: top + 10, "text-anchor": "end" }, `↑ up to ${show(highest)}`));
  if (lowest < low) parts.push(make("text", { class: "spike", x: right, y: bottom - 4, "text-anchor": "end" }, `↓ down to ${show(lowest)}`));
}
