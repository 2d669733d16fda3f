
// --- Curves ------------------------------------------------------------------------------
const view = { smooth: 5, cut: true, axis: "steps", hidden: new Set() };
const cards = []; // each chart's { draw, point }

const xsOf = (run) => runs[run][view.axis];
const xText = (value) => view.axis === "steps" ? plain(value) : value < 1.5 ? `${plain(60 * value)} min` : `${plain(value)} h`;

// Series with their colours; the order of a stack is work first, waiting on top of it.
const STACK_ORDER = ["training", "weight sync", "saving", "other", "trainer waiting for data", "waiting for batch", "total"];
function prepare(chart) {
  let series = chart.series;
  if (chart.kind === "stack") series = [...series].sort((a, b) => STACK_ORDER.indexOf(a.name) - STACK_ORDER.indexOf(b.name));
  const trains = series.filter((s) => !s.eval).length;
  // Train is blue and eval orange wherever there is one of each; else by number, without that orange in pairs.
  const single = trains <= 1 && series.length - trains <= 1;
  return series.map((s, i) => {
    const total = chart.kind === "stack" && s.name === "total";
    const colour = several ? runColour(s.run) : total ? "t" : single ? Number(s.eval) : trains === 2 && series.length === 2 ? 2 * i : i % 6;
    const name = several ? (s.eval ? `${runs[s.run].name}, eval` : runs[s.run].name) : s.name;
    return { ...s, total, colour, name };
  });
}

function drawChart(card, chart, all) {
  const series = all.filter((s) => !view.hidden.has(s.run));
  const svg = card.querySelector(".plot"), show = units[chart.unit];
  const reach = [Infinity, -Infinity];
  series.forEach((s) => xsOf(s.run).filter(known).forEach((at) => { reach[0] = Math.min(reach[0], at); reach[1] = Math.max(reach[1], at); }));
  if (!series.length || reach[0] > reach[1]) { svg.replaceChildren(); return null; }
  const ticks = niceTicks(...yRange(chart, series), svg.clientHeight > 250 ? 6 : 3);
  const drawn = frame(svg, ticks, tickLabels(ticks, show), reach, xText);
  if (chart.kind === "stack") drawStack(series, xsOf(series[0].run), drawn);
  else series.forEach((s) => drawLine(s, xsOf(s.run), drawn));
  if (chart.kind !== "stack") spikeNotes(series, drawn, show);
  const cursor = newCursor(drawn.top, drawn.bottom);
  svg.replaceChildren(...drawn.parts, cursor);

  const places = [...new Set(series.flatMap((s) => xsOf(s.run)).filter(known))].sort((a, b) => a - b);
  // `at` is a place on the x-axis, or null; only the chart in hand shows its numbers.
  const point = (at, isSource) => {
    const place = at === null ? null : closest(at, places), cx = at === null ? null : drawn.x(place);
    moveCursor(cursor, cx);
    if (at === null || !isSource) { hideTip(card); return; }
    const valueAt = (s) => { // by time no two runs have the same places: take what is nearest in each
      const xs = xsOf(s.run), i = view.axis === "steps" ? xs.indexOf(place) : xs.indexOf(closest(place, xs.filter(known)));
      return s.values[i];
    };
    const rows = series.filter((s) => known(valueAt(s))).map((s) => tipRow(s, show(valueAt(s))));
    const [plot, whole] = [svg, card].map((node) => node.getBoundingClientRect());
    showTip(card, plot.left - whole.left + cx, plot.top - whole.top + 8, view.axis === "steps" ? `step ${place}` : xText(place), rows);
  };
  const nearest = (event) => {
    const box = svg.getBoundingClientRect(), wanted = (event.clientX - box.left) * drawn.width / box.width;
    return closest(wanted, places, drawn.x);
  };
  return { point, nearest, places };
}

function legend(series) {
  if (several) return null; // the toolbar says it once
  return series.length === 1 && series[0].name === "train" ? null : legendOf(series);
}

function curveCard(chart) {
  const series = prepare(chart), show = units[chart.unit];
  const changes = series.map((s) => {
    const seen = s.values.filter(known);
    return `${s.name} from ${show(seen[0])} to ${show(seen[seen.length - 1])}`;
  }).join("; ");
  const seen = series[0].values.filter(known), first = seen[0], last = seen[seen.length - 1];
  const many = perColumn(runs[series[0].run].steps.length);
  const svg = make("svg", { class: "plot", role: "img", tabindex: 0, "aria-label": `${chart.title} by step: ${changes}. Arrow keys read single steps.` });
  const grow = make("button", { type: "button", class: "grow-chart", "aria-pressed": "false", "aria-label": `Enlarge ${chart.title}`, title: "Enlarge" }, "⤢");
  const change = chart.kind === "line" && series.length <= 2 && !several ? (first === last ? show(last) : `${show(first)} → ${show(last)}`) : "";
  const card = chartCard(chart, chart.kind, {
    beside: make("span", { class: "last num" }, change, grow), legend: legend(series), svg,
    note: chart.kind === "stack" && many > 1 ? `${chart.note} Averages of ${many} steps.` : chart.note,
  });
  let drawn = null, at = null;
  const mine = { draw: () => { if (svg.checkVisibility() && svg.clientWidth) drawn = drawChart(card, chart, series); }, point: (place, source) => drawn && drawn.point(place, source === mine) };
  cards.push(mine);
  const move = (place) => { at = place; cards.forEach((other) => other.point(place, mine)); };
  svg.addEventListener("pointermove", (event) => drawn && move(drawn.nearest(event)));
  svg.addEventListener("pointerdown", (event) => drawn && move(drawn.nearest(event)));
  svg.addEventListener("pointerleave", () => move(null));
  svg.addEventListener("blur", () => move(null));
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !drawn) return;
    event.preventDefault();
    const { places } = drawn, now = at === null ? (by > 0 ? -1 : places.length) : places.indexOf(at);
    move(places[Math.min(places.length - 1, Math.max(0, now + by))]);
  });
  grow.addEventListener("click", () => grow.setAttribute("aria-pressed", String(card.classList.toggle("large"))));
  // Drawn at its real width, so that text and lines keep their size; again when that changes.
  new ResizeObserver(mine.draw).observe(svg);
  return card;
}

function toolbar() {
  const form = byId("toolbar"), steps = Math.max(...runs.map((run) => run.steps.length));
  if (runs.some((run) => !run.hours.some(known))) form.elements.axis[1].closest("fieldset").hidden = true;
  byId("runs-shown").hidden = !several;
  if (several) byId("runs-shown").append(...runs.map((run, i) => make("label", { class: "check" }, make("input", { type: "checkbox", name: "shown", value: i, checked: true }), runKey(i), run.name)), make("span", null, "Lines: training. Dashes with dots: evaluation."));
  const read = () => {
    view.smooth = +form.elements.smooth.value;
    view.cut = form.elements.cut.checked;
    view.axis = form.elements.axis.value;
    view.hidden = new Set([...form.querySelectorAll("[name=shown]")].filter((box) => !box.checked).map((box) => +box.value));
    const over = 2 * Math.round(steps * view.smooth / 200) + 1;
    byId("smooth-note").textContent = over > 1 && steps >= 20 ? `over ${over} steps` : "none";
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { read(); cards.forEach((card) => card.draw()); });
  read();
}

function curves() {
  const box = byId("charts");
  byId("toolbar").hidden = !data.charts.length;
  if (!data.charts.length) { box.append(make("p", { class: "about" }, "No metrics yet.")); return; }
  toolbar();
  for (const section of new Set(data.charts.map((chart) => chart.section))) {
    const shown = data.charts.filter((chart) => chart.section === section).map(curveCard);
    const grid = make("div", { class: shown.length === 2 ? "charts two" : "charts" }, shown);
    if (section === "More") box.append(make("details", { class: "others", ontoggle: () => cards.forEach((card) => card.draw()) }, make("summary", null, make("h3", null, `All other metrics (${shown.length})`)), grid));
    else box.append(make("h3", null, section), grid);
  }
}
