
// --- The four kinds of charts: bars, lines, dots, heat -----------------------------------
// A method keeps its colour in every chart; what has none gets the next free one.
const COLOURS = { flip: 0, pointwise: 1, listwise: 2, pairwise: 3, "flip+penalise": 4, oracle: 5, random: 5, "flip+strip": 7, rlvr: 6, none: 5, "flip+f1": 0 };
function coloured(series) {
  // What was trained under one reward shares its colour.
  if (series.some((s) => s.like)) return series.map((s, i) => ({ ...s, colour: s.like in COLOURS ? COLOURS[s.like] : 4 + (i % 4) }));
  const taken = series.map((s) => s.name in COLOURS ? COLOURS[s.name] : null);
  series.forEach((_, i) => { taken[i] ??= [0, 1, 2, 3, 4, 6, 7, 5].find((c) => !taken.includes(c)) ?? i % 8; });
  return series.map((s, i) => ({ ...s, colour: taken[i] }));
}

const widthOf = (chart) => {
  const room = Math.min(1200, byId("sections").clientWidth || 1200);
  const columns = room < 700 || chart.wide ? 1 : chart.kind === "heat" && chart.columns.length <= 5 ? 4 : 2;
  return Math.floor((room - 12 * (columns - 1)) / columns) - 26;
};
const shorten = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;

// What the y-axis must hold: values, the ends of their intervals, lines of reference.
function valuesOf(points, refs) {
  const all = points.filter(known).flatMap((p) => [p.v, p.low, p.high]).filter(known);
  return [...all, ...(refs || []).map((ref) => ref.value)];
}
// From 0 where that costs little, else around the values.
function ticksOf(values, fromZero) {
  let low = Math.min(...values), high = Math.max(...values);
  if (fromZero || (low >= 0 && low < 0.3 * high)) low = Math.min(0, low);
  if (low === high) { low -= 0.05; high += 0.05; }
  return niceTicks(low, high, 5);
}
const ends = (ticks) => [ticks[0], ticks[ticks.length - 1]];

function pointText(p, unit) {
  if (!known(p)) return "none";
  const show = units[unit], parts = [p.paper ? p.note : show(p.v)];
  if (known(p.low)) parts.push(`[${show(p.low)}, ${show(p.high)}]`);
  if (known(p.invalid)) parts.push(`${percent(p.invalid)} invalid`);
  if (known(p.n)) parts.push(`n=${p.n}`);
  return parts.join("  ");
}

function plotOf(chart, width, height) {
  return make("svg", { class: `plot ${chart.kind === "heat" ? "fixed" : ""}`, viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": chart.title });
}
function cardOf(chart, series, svg) {
  const refs = (chart.refs || []).map((ref) => make("li", null, make("span", { class: "key dots" }), `${ref.name} ${percent(ref.value)}`));
  const kind = chart.wide ? "wide-chart" : chart.kind === "heat" && chart.columns.length <= 5 ? "small-chart" : "";
  return chartCard(chart, kind, { legend: legendOf(series.length > 1 ? series : [], ...refs), svg });
}
// A part of the plot that shows its numbers above the pointer: `rows` are [series, point].
function hit(card, place, title, rows, unit) {
  return make("rect", { class: "hit", ...place, onmousemove: (event) => showPoints(card, event, title, rows, unit) });
}
function showPoints(card, event, title, rows, unit) {
  const box = card.getBoundingClientRect();
  showTip(card, event.clientX - box.left, event.clientY - box.top - 12, title, rows.map(([s, p]) => tipRow(s, pointText(p, unit))), true);
}
const refLines = (chart, left, right, y) => (chart.refs || []).map((ref) => make("line", { class: "ref", x1: left, x2: right, y1: y(ref.value), y2: y(ref.value) }));

function drawBars(chart) {
  const { categories, unit } = chart, series = coloured(chart.series);
  const width = widthOf(chart), height = chart.wide ? 250 : 200;
  const ticks = ticksOf(valuesOf(series.flatMap((s) => s.points), chart.refs), true), [low, high] = ends(ticks);
  const labels = tickLabels(ticks, units[unit]), left = leftOf(labels);
  const right = width - 6, top = 12, bottom = height - 24, room = (right - left) / categories.length;
  const y = linear(low, high, bottom, top), zero = y(Math.max(0, low)), thick = Math.min(34, (room * 0.78) / series.length);
  const svg = plotOf(chart, width, height), card = cardOf(chart, series, svg), parts = yGrid(ticks, labels, left, right, y);
  categories.forEach((name, c) => {
    const middle = left + room * (c + 0.5), start = middle - thick * series.length / 2;
    parts.push(make("text", { x: middle, y: height - 7, "text-anchor": "middle" }, shorten(name, Math.floor(room / 6.2))));
    series.forEach((s, i) => {
      const p = s.points[c], x = start + thick * i, centre = x + thick / 2, cap = Math.min(4, thick / 4);
      if (!known(p)) { parts.push(make("text", { class: "absent", x: centre, y: zero - 4, "text-anchor": "middle" }, "–")); return; }
      parts.push(make("rect", { class: p.paper ? `bar-paper s${s.colour}` : `f${s.colour}`, x: x + 1, width: Math.max(1, thick - 2), y: Math.min(zero, y(p.v)), height: Math.max(1, Math.abs(zero - y(p.v))), rx: 2 }));
      if (known(p.low)) parts.push(make("path", { class: "whisker st", d: `M${centre} ${y(p.low)}V${y(p.high)}M${centre - cap} ${y(p.low)}H${centre + cap}M${centre - cap} ${y(p.high)}H${centre + cap}` }));
    });
    parts.push(hit(card, { x: left + room * c, width: room, y: top, height: bottom - top }, name, series.map((s) => [s, s.points[c]]), unit));
  });
  svg.append(...parts, ...refLines(chart, left, right, y));
  return card;
}

function drawLines(chart) {
  const { unit } = chart, series = coloured(chart.series);
  const width = widthOf(chart), height = chart.wide ? 250 : 210;
  const points = series.flatMap((s) => s.points).filter(known), places = [...new Set(points.map((p) => p.x))].sort((a, b) => a - b);
  const names = chart.x.names, log = chart.x.scale === "log";
  const ticks = ticksOf(valuesOf(points, chart.refs), false), [low, high] = ends(ticks);
  const labels = tickLabels(ticks, units[unit]), left = leftOf(labels);
  const right = width - 14, top = 12, bottom = height - 38, y = linear(low, high, bottom, top);
  const scale = log ? Math.log : (v) => v, inset = names ? 0 : 12;
  const [from, to] = names ? [-0.4, names.length - 0.6] : ends(places).map(scale);
  const across = linear(from, to, left + inset, right - inset), x = (v) => across(scale(v));
  const marks = names ? names.map((_, i) => i) : places.length <= 9 ? places : niceTicks(...ends(places), 7).filter((t) => t >= places[0] && t <= places[places.length - 1]);
  const svg = plotOf(chart, width, height), card = cardOf(chart, series, svg), parts = yGrid(ticks, labels, left, right, y);
  marks.forEach((mark) => parts.push(make("text", { x: x(mark), y: bottom + 16, "text-anchor": "middle" }, names ? names[mark] : plain(mark))));
  parts.push(make("text", { class: "axis-name", x: (left + right) / 2, y: height - 5, "text-anchor": "middle" }, chart.x.label));
  series.forEach((s) => {
    const own = s.points.filter(known), wide = own.filter((p) => known(p.low));
    if (wide.length > 1) parts.push(make("path", { class: `band f${s.colour}`, d: `${path(wide.map((p) => [p.x, p.high]), x, y)}${path(wide.map((p) => [p.x, p.low]).reverse(), x, y).replace("M", "L")}Z` }));
    parts.push(make("path", { class: `l s${s.colour}${s.dashed ? " dashed" : ""}`, d: path(own.map((p) => [p.x, p.v]), x, y) }));
    if (own.length <= 30) own.forEach((p) => parts.push(make("circle", { class: `f${s.colour} dotted`, cx: x(p.x), cy: y(p.v), r: 3.4 })));
  });
  const cursor = newCursor(top, bottom);
  svg.append(...parts, ...refLines(chart, left, right, y), cursor, make("rect", { class: "hit", x: left, width: right - left, y: top, height: bottom - top, onmousemove: (event) => {
    const box = svg.getBoundingClientRect(), nearest = closest((event.clientX - box.left) * width / box.width, places, x);
    moveCursor(cursor, x(nearest));
    const rows = series.map((s) => [s, s.points.find((p) => known(p) && p.x === nearest)]).filter(([, p]) => known(p));
    showPoints(card, event, names ? names[nearest] : `${chart.x.label}: ${plain(nearest)}`, rows, unit);
  } }));
  return card;
}

function drawDots(chart) {
  const { categories, unit } = chart, series = coloured(chart.series), step = 7 * series.length + 12;
  const width = widthOf(chart), left = Math.min(200, 16 + 6.8 * Math.max(...categories.map((c) => c.length)));
  const height = categories.length * step + 40, right = width - 14, top = 8, bottom = height - 26;
  const ticks = ticksOf([...valuesOf(series.flatMap((s) => s.points)), 0], false), x = linear(...ends(ticks), left, right);
  const svg = plotOf(chart, width, height), card = cardOf(chart, series, svg), stripes = [];
  const parts = ticks.flatMap((tick) => [make("line", { class: tick === 0 ? "grid zero" : "grid", x1: x(tick), x2: x(tick), y1: top, y2: bottom }),
    make("text", { x: x(tick), y: bottom + 16, "text-anchor": "middle" }, tick ? signed(unit === "share" ? 100 * tick : tick) : "0")]);
  categories.forEach((name, c) => {
    const middle = top + step * (c + 0.5);
    if (c % 2) stripes.push(make("rect", { class: "stripe", x: 0, width, y: top + step * c, height: step }));
    parts.push(make("text", { class: "row-name", x: left - 10, y: middle + 4, "text-anchor": "end" }, shorten(name, 27)));
    series.forEach((s, i) => {
      const p = s.points[c], y = middle + 7 * (i - (series.length - 1) / 2);
      if (!known(p)) return;
      if (known(p.low)) parts.push(make("line", { class: `l s${s.colour}`, x1: x(p.low), x2: x(p.high), y1: y, y2: y }));
      parts.push(make("circle", { class: `f${s.colour} dotted`, cx: x(p.v), cy: y, r: 3.6 }));
    });
    parts.push(hit(card, { x: 0, width, y: top + step * c, height: step }, name, series.map((s) => [s, s.points[c]]), unit));
  });
  svg.append(...stripes, ...parts);
  return card;
}

function drawHeat(chart) {
  const { rows, columns, points, unit } = chart, width = widthOf(chart);
  const left = Math.min(130, 14 + 7.2 * Math.max(...rows.map((r) => r.length)));
  const size = Math.min(62, (width - left - 6) / columns.length), tall = Math.min(size, 40);
  const height = tall * rows.length + 30, parts = [];
  const svg = plotOf(chart, width, height), card = cardOf(chart, [], svg);
  const show = unit === "share" ? (v) => (100 * v).toFixed(1) : score; // a square is small: no percent sign
  rows.forEach((row, r) => {
    parts.push(make("text", { class: "row-name", x: left - 8, y: tall * (r + 0.5) + 4, "text-anchor": "end" }, shorten(row, 20)));
    columns.forEach((column, c) => {
      const p = points[r][c], strength = known(p) ? Math.max(0.06, Math.min(1, p.v)) : 0;
      parts.push(make("rect", { class: known(p) ? "f0" : "hole", opacity: known(p) ? strength : 1, x: left + size * c + 1, y: tall * r + 1, width: size - 2, height: tall - 2, rx: 3 }));
      parts.push(make("text", { class: strength > 0.55 ? "on" : "off", x: left + size * (c + 0.5), y: tall * (r + 0.5) + 4, "text-anchor": "middle" }, known(p) ? show(p.v) : "–"));
      parts.push(hit(card, { x: left + size * c, y: tall * r, width: size, height: tall }, row === column ? `${row}: run against run` : `${row} ~ ${column}`, [[{ name: "" }, p]], unit));
    });
  });
  columns.forEach((column, c) => parts.push(make("text", { x: left + size * (c + 0.5), y: tall * rows.length + 18, "text-anchor": "middle" }, shorten(column, Math.max(3, Math.floor(size / 6.2))))));
  svg.append(...parts);
  return card;
}

const DRAW = { bars: drawBars, lines: drawLines, dots: drawDots, heat: drawHeat };
function drawn(chart) {
  const points = chart.kind === "heat" ? chart.points.flat() : chart.series.flatMap((s) => s.points);
  if (!points.some(known)) return null;
  const card = DRAW[chart.kind](chart);
  card.addEventListener("mouseleave", () => {
    hideTip(card);
    card.querySelectorAll(".cursor").forEach((cursor) => moveCursor(cursor, null));
  });
  return card;
}
