// Two models on one board: paired differences, the structures on which they differ, a scatter by
// Observable Plot.
"use strict";
(function () {
  const section = document.getElementById("pair");
  const select = (id) => document.getElementById(id);
  const chart = document.getElementById("chart");
  const state = Site.state();
  const COMPARED = { score: 3, lattice_mae: 3, volume_mape: 2, strain: 4, position_mae: 4 };
  const MOST = 15;
  let board = null;

  const metric = (name) => board.metrics.find((m) => m.name === name);
  const higher = (name) => name === "score";
  const signed = (x, digits) => (x > 0 ? "+" : "") + (Number(x.toFixed(digits)) + 0).toFixed(digits);

  function pairs(name, first, second) {
    const [a, b] = [metric(name).values[first], metric(name).values[second]];
    return board.ids.map((_, i) => i).filter((i) => a[i] !== null && b[i] !== null).map((i) => ({ i, a: a[i], b: b[i], d: a[i] - b[i] }));
  }

  function differences(first, second) {
    const body = select("differences").tBodies[0];
    body.replaceChildren();
    const said = [];
    for (const [name, digits] of Object.entries(COMPARED)) {
      const found = pairs(name, first, second);
      const mean = (values) => (values.length ? values.reduce((x, y) => x + y, 0) / values.length : null);
      const { point, low, high, n } = Statistics.mean(found.map((p) => p.d), found.map((p) => board.group[p.i]));
      const apart = low !== null && (low > 0 || high < 0);
      const better = !apart ? "not told apart" : board.models[(point > 0) === higher(name) ? first : second];
      const text = point === null ? "—" : signed(point, digits) + (low === null ? "" : " [" + signed(low, digits) + ", " + signed(high, digits) + "]");
      const cell = (x) => (x === null ? "—" : x.toFixed(digits));
      const row = Site.element("tr", {}, Site.element("th", { scope: "row" }, name));
      row.append(Site.element("td", {}, cell(mean(found.map((p) => p.a)))), Site.element("td", {}, cell(mean(found.map((p) => p.b)))),
        Site.element("td", {}, apart ? Site.element("strong", {}, text) : text), Site.element("td", {}, String(n)),
        Site.element("td", { class: "text" }, better));
      body.append(row);
      if (name === "score" || name === "lattice_mae" || name === "position_mae") said.push(name + ": " + better + (apart ? " is better" : ""));
    }
    select("verdict").textContent = board.models[first] + " and " + board.models[second] + ". " + said.join("; ") + ".";
  }

  function most(name, first, second) {
    const body = select("most").tBodies[0];
    const digits = COMPARED[name];
    const heads = select("most").tHead.rows[0].cells;
    heads[3].textContent = board.models[first];
    heads[4].textContent = board.models[second];
    body.replaceChildren();
    const found = pairs(name, first, second).sort((p, q) => Math.abs(q.d) - Math.abs(p.d)).slice(0, MOST);
    for (const { i, a, b, d } of found) {
      const link = Site.element("a", { href: section.dataset.root + board.pages[i] }, board.ids[i]);
      body.append(Site.element("tr", {}, Site.element("th", { scope: "row" }, link), Site.element("td", { class: "text" }, board.group[i]),
        Site.element("td", {}, String(board.sites[i])), Site.element("td", {}, a.toFixed(digits)),
        Site.element("td", {}, b.toFixed(digits)), Site.element("td", {}, signed(d, digits))));
    }
  }

  function scatter(name, first, second) {
    if (!chart || typeof Plot === "undefined") return;
    const found = pairs(name, first, second);
    const floor = 1e-4; // smaller errors stand on the edge of a logarithmic axis
    const log = !higher(name) && found.some((p) => p.a > 0 || p.b > 0);
    const clip = (x) => (log ? Math.max(x, floor) : x);
    const points = found.map((p) => ({ x: clip(p.a), y: clip(p.b), i: p.i }));
    const all = points.flatMap((p) => [p.x, p.y]);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const domain = log ? [low / 1.3, high * 1.3] : [Math.min(0, low), Math.max(1, high)];
    const axis = { type: log ? "log" : "linear", domain, grid: true, ...(log ? { ticks: 5, tickFormat: (x) => String(Number(x.toPrecision(1))) } : {}) };
    const ink = getComputedStyle(document.documentElement);
    const made = Plot.plot({
      width: Math.min(560, section.clientWidth), height: Math.min(520, section.clientWidth), marginLeft: 56, marginBottom: 44,
      style: { color: ink.getPropertyValue("--ink"), fontSize: "12px" },
      x: { ...axis, label: board.models[first] + ", " + name }, y: { ...axis, label: board.models[second] + ", " + name },
      marks: [
        Plot.line([[domain[0], domain[0]], [domain[1], domain[1]]], { stroke: "currentColor", strokeDasharray: "4 3", strokeOpacity: 0.5 }),
        Plot.dot(points, { x: "x", y: "y", r: 3, stroke: ink.getPropertyValue("--mark"), fill: ink.getPropertyValue("--mark"), fillOpacity: 0.25,
          href: (p) => section.dataset.root + board.pages[p.i], ariaLabel: (p) => board.ids[p.i],
          title: (p) => board.ids[p.i] + "\n" + board.group[p.i] + "\n" + p.x.toPrecision(3) + ", " + p.y.toPrecision(3) }),
      ],
    });
    made.setAttribute("role", "group");
    for (const group of made.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label"); // of no role
    chart.replaceChildren(made);
    chart.dataset.points = String(points.length);
  }

  function update() {
    const [first, second] = [Number(select("first").value), Number(select("second").value)];
    const name = select("by").value;
    state.set("a", board.models[first]);
    state.set("b", board.models[second]);
    state.set("by", name);
    Site.keep(state);
    differences(first, second);
    most(name, first, second);
    scatter(name, first, second);
    section.dataset.ready = "1";
  }

  if (!select("first").options.length || !select("by").options.length) return;
  Site.load(section.dataset.samples, () => {
    board = window.BOARD;
    const place = (name, id) => {
      const k = board.models.indexOf(state.get(name));
      if (k >= 0) select(id).value = String(k);
    };
    const asked = state.get("by");
    place("a", "first");
    place("b", "second");
    if (asked in COMPARED) select("by").value = asked;
    for (const id of ["first", "second", "by"]) select(id).addEventListener("change", update);
    select("turn").addEventListener("click", () => {
      [select("first").value, select("second").value] = [select("second").value, select("first").value];
      update();
    });
    document.addEventListener("theme", update);
    section.hidden = false;
    update();
  });
})();
