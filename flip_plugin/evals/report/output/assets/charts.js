// --- The four kinds of charts ------------------------------------------------------------
const widthOf = (chart) => {
  const room = Math.min(1200, byId("sections").clientWidth || 1200);
  const columns = room < 700 || chart.wide ? 1 : chart.kind === "heat" && chart.columns.length <= 5 ? 4 : 2;
  return Math.floor((room - 12 * (columns - 1)) / columns) - 26;
};
const whole = (text, most) => text.length > most ? `${text.slice(0, most - 1)}…` : text;

function drawBars(chart) {
  const { series, categories, unit } = chart, tints = colours(series);
  const width = widthOf(chart), height = chart.wide ? 250 : 200;
  const [low, high, ticks] = reachOf(valuesOf(series.flatMap((s) => s.points), chart.refs), true);
  const labels = ticks.map(tickLabel(unit)), left = 12 + 6.3 * Math.max(...labels.map((l) => l.length));
  const right = width - 6, top = 12, bottom = height - 24, room = (right - left) / categories.length;
  const y = (v) => bottom - (bottom - top) * (v - low) / (high - low);
  const parts = [], thick = Math.min(34, (room * 0.78) / series.length);
  gridLines(parts, ticks, labels, left, right, y);
  const svg = make("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, style: null, width, height, role: "img", "aria-label": chart.title });
  const figure = figureOf(chart, legendOf(series, tints, chart.refs), svg);
  categories.forEach((name, c) => {
    const middle = left + room * (c + 0.5), start = middle - thick * series.length / 2;
    parts.push(make("text", { x: middle, y: height - 7, "text-anchor": "middle" }, whole(name, Math.floor(room / 6.2))));
    series.forEach((s, i) => {
      const p = s.points[c], x = start + thick * i;
      if (!known(p)) { parts.push(make("text", { class: "absent", x: x + thick / 2, y: y(Math.max(0, low)) - 4, "text-anchor": "middle" }, "–")); return; }
      const from = y(Math.max(0, low)), to = y(p.v);
      parts.push(make("rect", { class: p.paper ? `bar-paper s${tints[i]}` : `f${tints[i]}`, x: x + 1, width: Math.max(1, thick - 2), y: Math.min(from, to), height: Math.max(1, Math.abs(from - to)), rx: 2 }));
      if (known(p.low)) parts.push(bar(x + thick / 2, y(p.low), y(p.high), Math.min(4, thick / 4), "t"));
    });
    parts.push(make("rect", { class: "hit", x: left + room * c, width: room, y: top, height: bottom - top,
      onmousemove: (event) => tell(figure, tipRows(name, series.map((s, i) => [tints[i], s.name, s.points[c], unit])), event) }));
  });
  refLines(chart, parts, left, right, y);
  svg.append(...parts);
  return figure;
}

function drawLines(chart) {
  const { series, unit } = chart, tints = colours(series);
  const width = widthOf(chart), height = chart.wide ? 250 : 210;
  const points = series.flatMap((s) => s.points).filter(known), at = points.map((p) => p.x);
  const names = chart.x.names, log = chart.x.scale === "log";
  const [low, high, ticks] = reachOf(valuesOf(points, chart.refs), false);
  const labels = ticks.map(tickLabel(unit)), left = 12 + 6.3 * Math.max(...labels.map((l) => l.length));
  const right = width - 14, top = 12, bottom = height - 38;
  const scale = log ? Math.log : (v) => v, pad = names ? 0.4 : 0;
  const from = scale(names ? 0 : Math.min(...at)) - pad, to = scale(names ? names.length - 1 : Math.max(...at)) + pad;
  const inset = names ? 0 : 12;
  const x = (v) => left + inset + (right - left - 2 * inset) * (to > from ? (scale(v) - from) / (to - from) : 0.5);
  const y = (v) => bottom - (bottom - top) * (v - low) / (high - low);
  const parts = [];
  gridLines(parts, ticks, labels, left, right, y);
  const places = [...new Set(at)].sort((a, b) => a - b);
  const marks = names ? names.map((_, i) => i) : places.length <= 9 ? places : niceTicks(places[0], places[places.length - 1], 7).filter((t) => t >= places[0] && t <= places[places.length - 1]);
  marks.forEach((mark) => parts.push(make("text", { x: x(mark), y: bottom + 16, "text-anchor": "middle" }, names ? names[mark] : plain(mark))));
  parts.push(make("text", { class: "axis-name", x: (left + right) / 2, y: height - 5, "text-anchor": "middle" }, chart.x.label));
  const svg = make("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": chart.title });
  const figure = figureOf(chart, legendOf(series, tints, chart.refs), svg);
  series.forEach((s, i) => {
    const own = s.points.filter(known), line = own.map((p, k) => `${k ? "L" : "M"}${x(p.x).toFixed(1)} ${y(p.v).toFixed(1)}`).join("");
    const wide = own.filter((p) => known(p.low));
    if (wide.length > 1) parts.push(make("path", { class: `band f${tints[i]}`, d: `${wide.map((p, k) => `${k ? "L" : "M"}${x(p.x).toFixed(1)} ${y(p.high).toFixed(1)}`).join("")}${[...wide].reverse().map((p) => `L${x(p.x).toFixed(1)} ${y(p.low).toFixed(1)}`).join("")}Z` }));
    parts.push(make("path", { class: `l s${tints[i]}${s.dashed ? " dashed" : ""}`, d: line }));
    if (own.length <= 30) own.forEach((p) => parts.push(make("circle", { class: `f${tints[i]} dotted`, cx: x(p.x), cy: y(p.v), r: 3.4 })));
  });
  refLines(chart, parts, left, right, y);
  const cursor = make("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
  parts.push(cursor, make("rect", { class: "hit", x: left, width: right - left, y: top, height: bottom - top, onmousemove: (event) => {
    const box = svg.getBoundingClientRect(), want = (event.clientX - box.left) * width / box.width;
    const nearest = places.reduce((best, p) => Math.abs(x(p) - want) < Math.abs(x(best) - want) ? p : best, places[0]);
    cursor.setAttribute("visibility", "visible"); cursor.setAttribute("x1", x(nearest)); cursor.setAttribute("x2", x(nearest));
    const title = names ? names[nearest] : `${chart.x.label}: ${plain(nearest)}`;
    tell(figure, tipRows(title, series.map((s, i) => [tints[i], s.name, s.points.filter(known).find((p) => p.x === nearest), unit]).filter((row) => known(row[2]))), event);
  } }));
  svg.append(...parts);
  return figure;
}
function drawDots(chart) {
  const { series, categories, unit } = chart, tints = colours(series), step = 7 * series.length + 12;
  const width = widthOf(chart), left = Math.min(200, 16 + 6.8 * Math.max(...categories.map((c) => c.length)));
  const height = categories.length * step + 40, right = width - 14, top = 8, bottom = height - 26;
  const values = [...valuesOf(series.flatMap((s) => s.points)), 0], [low, high, ticks] = reachOf(values, false);
  const x = (v) => left + (right - left) * (v - low) / (high - low), parts = [];
  ticks.forEach((tick) => parts.push(make("line", { class: tick === 0 ? "grid zero" : "grid", x1: x(tick), x2: x(tick), y1: top, y2: bottom }),
    make("text", { x: x(tick), y: bottom + 16, "text-anchor": "middle" }, unit === "share" ? `${tick > 0 ? "+" : ""}${+(100 * tick).toPrecision(3)}` : `${tick > 0 ? "+" : ""}${plain(tick)}`)));
  const svg = make("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": chart.title });
  const figure = figureOf(chart, legendOf(series, tints, chart.refs), svg);
  categories.forEach((name, c) => {
    const middle = top + step * (c + 0.5);
    if (c % 2) parts.unshift(make("rect", { class: "stripe", x: 0, width, y: top + step * c, height: step }));
    parts.push(make("text", { class: "row-name", x: left - 10, y: middle + 4, "text-anchor": "end" }, whole(name, 27)));
    series.forEach((s, i) => {
      const p = s.points[c], y = middle + 7 * (i - (series.length - 1) / 2);
      if (!known(p)) return;
      if (known(p.low)) parts.push(make("line", { class: `l s${tints[i]}`, x1: x(p.low), x2: x(p.high), y1: y, y2: y }));
      parts.push(make("circle", { class: `f${tints[i]} dotted`, cx: x(p.v), cy: y, r: 3.6 }));
    });
    parts.push(make("rect", { class: "hit", x: 0, width, y: top + step * c, height: step,
      onmousemove: (event) => tell(figure, tipRows(name, series.map((s, i) => [tints[i], s.name, s.points[c], unit])), event) }));
  });
  svg.append(...parts);
  return figure;
}

function drawHeat(chart) {
  const { rows, columns, points, unit } = chart, width = widthOf(chart);
  const left = Math.min(130, 14 + 7.2 * Math.max(...rows.map((r) => r.length)));
  const size = Math.min(62, (width - left - 6) / columns.length), tall = Math.min(size, 40);
  const height = tall * rows.length + 30, parts = [];
  const svg = make("svg", { class: "plot fixed", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": chart.title });
  const figure = figureOf(chart, null, svg);
  const show = unit === "share" ? (v) => percent(v) : (v) => v.toFixed(2);
  rows.forEach((row, r) => {
    parts.push(make("text", { class: "row-name", x: left - 8, y: tall * (r + 0.5) + 4, "text-anchor": "end" }, whole(row, 20)));
    columns.forEach((column, c) => {
      const p = points[r][c], strength = known(p) ? Math.max(0.06, Math.min(1, p.v)) : 0;
      parts.push(make("rect", { class: known(p) ? "f0" : "hole", opacity: known(p) ? strength : 1, x: left + size * c + 1, y: tall * r + 1, width: size - 2, height: tall - 2, rx: 3 }));
      parts.push(make("text", { class: strength > 0.55 ? "on" : "off", x: left + size * (c + 0.5), y: tall * (r + 0.5) + 4, "text-anchor": "middle" }, known(p) ? show(p.v) : "–"));
      parts.push(make("rect", { class: "hit", x: left + size * c, y: tall * r, width: size, height: tall,
        onmousemove: (event) => tell(figure, tipRows(row === column ? `${row}: run against run` : `${row} ~ ${column}`, [[null, "", p, unit]]), event) }));
    });
  });
  columns.forEach((column, c) => parts.push(make("text", { x: left + size * (c + 0.5), y: tall * rows.length + 18, "text-anchor": "middle" }, whole(column, Math.max(3, Math.floor(size / 6.2))))));
  svg.append(...parts);
  return figure;
}

const DRAW = { bars: drawBars, lines: drawLines, dots: drawDots, heat: drawHeat };
function drawn(chart) {
  const points = chart.kind === "heat" ? chart.points.flat() : chart.series.flatMap((s) => s.points);
  if (!points.some(known)) return null;
  const figure = DRAW[chart.kind](chart);
  figure.addEventListener("mouseleave", () => {
    figure.querySelector(".tip").hidden = true;
    figure.querySelectorAll(".cursor").forEach((line) => line.setAttribute("visibility", "hidden"));
  });
  return figure;
}
