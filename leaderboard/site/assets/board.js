// Filters and weights of a board: rows by what the model is, and every number computed again on the
// structures that a filter keeps. The rules are those of benchmarks/core/statistics.py.
"use strict";
(function () {
  const { table, state } = Table;
  const section = document.getElementById("board");
  const controls = document.getElementById("controls");
  const { REPLICATES } = Statistics;
  const stored = new Map(); // what the cells show for all structures
  let board = null;
  let weighted = false;

  // --- what the reader has chosen, in the hash ---

  const listed = (name) => (state.get(name) || "").split("|").filter(Boolean);
  const put = (name, values) => {
    if (values.length) state.set(name, values.join("|")); else state.delete(name);
    Site.keep(state);
  };

  function wire() {
    for (const set of controls.querySelectorAll("[data-row], [data-sample], [data-flag]")) {
      const name = set.dataset.row || set.dataset.sample || set.dataset.flag;
      const key = (set.dataset.sample ? "s." : set.dataset.row ? "r." : "") + name;
      const boxes = [...set.querySelectorAll("input")];
      const chosen = listed(key);
      for (const box of boxes) {
        box.checked = chosen.includes(box.value || "none");
        box.addEventListener("change", () => {
          put(key, boxes.filter((b) => b.checked).map((b) => b.value || "none"));
          update();
        });
      }
    }
    for (const box of controls.querySelectorAll("[data-end]")) {
      box.value = state.get("sites." + box.dataset.end) || "";
      box.addEventListener("change", () => { put("sites." + box.dataset.end, box.value ? [box.value] : []); update(); });
    }
    for (const button of controls.querySelectorAll("[data-element]")) {
      const press = (on) => button.setAttribute("aria-pressed", String(on));
      press(listed("el").includes(button.dataset.element));
      button.addEventListener("click", () => {
        press(button.getAttribute("aria-pressed") !== "true");
        put("el", [...controls.querySelectorAll("[data-element][aria-pressed=true]")].map((b) => b.dataset.element));
        update();
      });
    }
    for (const radio of controls.querySelectorAll("[name=mode]")) {
      radio.checked = radio.value === (state.get("mode") || "any");
      radio.addEventListener("change", () => { put("mode", radio.value === "only" ? ["only"] : []); update(); });
    }
    const many = document.getElementById("many");
    many.value = state.get("many") || "";
    many.addEventListener("input", () => { put("many", Number(many.value) > 0 ? [many.value] : []); update(); });
    const sliders = [...controls.querySelectorAll("[data-weight]")];
    const given = listed("w");
    sliders.forEach((slider, k) => {
      if (given.length === sliders.length) slider.value = given[k];
      slider.nextElementSibling.textContent = slider.value;
      slider.addEventListener("input", () => {
        slider.nextElementSibling.textContent = slider.value;
        put("w", sliders.map((s) => s.value));
        update();
      });
    });
    // a fold whose choices are in use is open
    for (const fold of controls.querySelectorAll("details")) {
      if (fold.querySelector("input[type=checkbox]:checked:not(#columns input), [aria-pressed=true]")) fold.open = true;
    }
    if (given.length) document.getElementById("weights").open = true;
  }

  // --- the structures that are kept ---

  const elements = (group) => group.match(/[A-Z][a-z]?/g) || [];

  function keptSamples(rows) {
    const wanted = { functional: listed("s.functional"), source: listed("s.source"), system: listed("s.system") };
    const marked = listed("el");
    const from = Number(state.get("sites.from") || 0);
    const to = Number(state.get("sites.to") || Infinity);
    const clean = listed("clean").length ? board.metrics.find((m) => m.name === "score_clean") : null;
    const kept = [];
    for (let i = 0; i < board.ids.length; i++) {
      if (Object.entries(wanted).some(([key, values]) => values.length && !values.includes(board[key][i]))) continue;
      if (board.sites[i] < from || board.sites[i] > to) continue;
      if (marked.length) {
        const found = elements(board.group[i]);
        const fits = state.get("mode") === "only"
          ? found.every((e) => marked.includes(e)) : found.some((e) => marked.includes(e));
        if (!fits) continue;
      }
      if (clean && !rows.every((row) => clean.weights[row][i] === 1)) continue;
      kept.push(i);
    }
    return kept;
  }

  const filtering = () => ["s.functional", "s.source", "s.system", "el", "sites.from", "sites.to", "clean"]
    .some((name) => listed(name).length);

  // --- one number from the values of samples; `times` says how often each sample counts ---

  function reduced(metric, row, kept, times) {
    const values = metric.values[row];
    const weights = metric.weights ? metric.weights[row] : null;
    let top = 0, bottom = 0, count = 0;
    const skill = metric.reduce === "SKILL";
    if (metric.reduce === "MEDIAN") return median(kept.map((i) => values[i]).filter((x) => x !== null));
    for (let k = 0; k < kept.length; k++) {
      const x = values[kept[k]];
      const w = weights ? weights[kept[k]] : 1;
      const t = times ? times[k] : 1;
      if (x === null || w === null || t === 0) continue;
      top += t * (skill ? x : x * w);
      bottom += t * w;
      count += t;
    }
    if (bottom === 0) return null;
    if (skill) return bottom / count < 1e-4 ? null : 1 - top / bottom;
    if (metric.reduce === "ROOT_MEAN") return Math.sqrt(top / bottom);
    if (metric.reduce === "INVERSE_MEAN") return bottom / top;
    return top / bottom;
  }

  function median(values) {
    if (!values.length) return null;
    values.sort((a, b) => a - b);
    const middle = values.length / 2;
    return (values[Math.ceil(middle) - 1] + values[Math.floor(middle)]) / 2;
  }

  // Intervals of the scores and the ranks that they allow, from a paired bootstrap over compositions.
  function bootstrap(kept, rows) {
    const score = board.metrics.find((m) => m.name === "score");
    const names = [...new Set(kept.map((i) => board.group[i]))];
    const place = new Map(names.map((name, k) => [name, k]));
    if (names.length < 2) return rows.map(() => ({ low: null, high: null, rankLow: 1, rankHigh: rows.length }));
    const sums = rows.map(() => new Float64Array(names.length));
    const sizes = new Float64Array(names.length);
    for (const i of kept) {
      const g = place.get(board.group[i]);
      sizes[g] += 1;
      rows.forEach((row, r) => { sums[r][g] += score.values[row][i]; });
    }
    const next = Statistics.random(1);
    const scores = rows.map(() => []);
    const ranks = rows.map(() => []);
    for (let b = 0; b < REPLICATES; b++) {
      const totals = new Float64Array(rows.length);
      let size = 0;
      for (let draw = 0; draw < names.length; draw++) {
        const g = Math.floor(next() * names.length);
        size += sizes[g];
        for (let r = 0; r < rows.length; r++) totals[r] += sums[r][g];
      }
      const found = [...totals].map((t) => t / size);
      found.forEach((x, r) => {
        scores[r].push(x);
        ranks[r].push(1 + found.filter((y) => y > x).length);
      });
    }
    return rows.map((_, r) => {
      const [low, high] = Statistics.interval(scores[r]);
      const [rankLow, rankHigh] = Statistics.interval(ranks[r]);
      return { low, high, rankLow, rankHigh };
    });
  }

  // --- what is shown ---

  const DIGITS = { volume_mape: 2, strain: 4, skill_lattice: 2, skill_position: 2, n_force_evals: 0 };
  const format = (name, x) => (x === null ? "—"
    : name === "wall_time_median" ? String(Number(x.toPrecision(2)))
      : (Number(x.toFixed(DIGITS[name] ?? 3)) + 0).toFixed(DIGITS[name] ?? 3));

  function interval(head, point, low, high) {
    if (!head.dataset.scale || point === null) return null;
    const [from, to, log] = head.dataset.scale.split(",").map(Number);
    const place = (x) => {
      const v = Math.min(Math.max(x, from), to);
      return 3 + 58 * (log ? Math.log(v / from) / Math.log(to / from) : (v - from) / (to - from));
    };
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "iv");
    svg.setAttribute("viewBox", "0 0 64 8");
    svg.setAttribute("aria-hidden", "true");
    const add = (tag, attributes) => {
      const made = document.createElementNS(svg.namespaceURI, tag);
      for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
      svg.append(made);
    };
    if (low !== null) add("path", { d: "M" + place(low) + " 4H" + place(high) });
    add("circle", { cx: place(point), cy: 4, r: 2.2 });
    return svg;
  }

  function fill(row, key, text, value, small, drawing) {
    const position = Table.position(key);
    if (position < 0) return;
    const cell = row.cells[position];
    if (!stored.has(cell)) stored.set(cell, [[...cell.childNodes], cell.dataset.v]);
    cell.replaceChildren(Site.element("span", { class: "x" }, text));
    if (small) cell.append(" ", Site.element("small", {}, small));
    if (drawing) cell.append(drawing);
    if (value === null) delete cell.dataset.v; else cell.dataset.v = value;
  }

  function restore() {
    for (const [cell, [nodes, value]] of stored) {
      cell.replaceChildren(...nodes);
      if (value === undefined) delete cell.dataset.v; else cell.dataset.v = value;
    }
    stored.clear();
  }

  function recompute(kept) {
    const rows = Table.shown();
    const models = rows.map((row) => Number(row.dataset.row));
    const spread = bootstrap(kept, models);
    const score = board.metrics.find((m) => m.name === "score");
    const points = models.map((model) => reduced(score, model, kept));
    rows.forEach((row, r) => {
      for (const head of Table.heads()) {
        const key = head.dataset.key;
        const metric = board.metrics.find((m) => m.name === key);
        if (!metric) {
          if (head.dataset.added || ["ties", "scored", "front"].includes(key)) fill(row, key, "—", null);
          continue;
        }
        const x = reduced(metric, models[r], kept);
        const low = key === "score" ? spread[r].low : null;
        const high = key === "score" ? spread[r].high : null;
        const n = metric.weights && key === "score_clean" ? kept.filter((i) => metric.weights[models[r]][i] === 1).length : null;
        const small = low !== null ? "[" + format(key, low) + ", " + format(key, high) + "]" : n ? "(" + n + ")" : "";
        fill(row, key, format(key, x), x, small, interval(head, x, low, high));
      }
      const rank = 1 + points.filter((y) => y > points[r]).length;
      const { rankLow, rankHigh } = spread[r];
      fill(row, "rank", String(rank), rank, rankLow < rankHigh ? rankLow + "–" + rankHigh : "");
    });
  }

  // The weighted score, from the two halves of the score and the time of what is shown.
  function weigh(kept) {
    const given = listed("w").map(Number);
    const on = given.length === 3 && !(given[0] === given[1] && given[2] === 0);
    if (on && !weighted) {
      const head = Site.element("th", { scope: "col", "data-key": "weighted", "data-better": "up" },
        Site.element("span", { class: "label" }, "Weighted ↑"));
      const position = Table.position("score");
      table.tHead.rows[0].insertBefore(head, table.tHead.rows[0].cells[position]);
      for (const row of Table.rows()) row.insertBefore(Site.element("td"), row.cells[position]);
      weighted = true;
    }
    if (!weighted) return;
    const metric = (name) => board.metrics.find((m) => m.name === name);
    const position = Table.position("weighted");
    for (const row of Table.rows()) {
      const model = Number(row.dataset.row);
      const cell = reduced(metric("strain_awt"), model, kept);
      const positions = reduced(metric("adwt"), model, kept);
      const seconds = reduced(metric("wall_time_median"), model, kept);
      const time = seconds === null ? 0 : Math.min(1, Math.max(0, (3 - Math.log10(Math.max(seconds, 1e-9))) / 6));
      const [c, p, t] = on ? given : [1, 1, 0];
      const sum = c + p + t;
      const x = sum > 0 && cell !== null ? (c * cell + p * positions + t * time) / sum : null;
      row.cells[position].replaceChildren(Site.element("span", { class: "x" }, x === null ? "—" : x.toFixed(3)));
      if (x === null) delete row.cells[position].dataset.v; else row.cells[position].dataset.v = x;
    }
    if (on && !state.get("sort")) { Table.sort("weighted", true); state.delete("sort"); Site.keep(state); }
  }

  // The time that many structures take, at the median of what is shown.
  function total() {
    const many = Number(state.get("many") || 0);
    if (!(many > 0)) return;
    for (const row of Table.shown()) {
      const cell = row.cells[Table.position("wall_time_median")];
      if (!cell || !cell.dataset.v) continue;
      const seconds = Number(cell.dataset.v) * many;
      const [unit, size] = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, s]) => seconds >= 2 * s) || ["s", 1];
      const mark = cell.querySelector("small")?.textContent || "";
      const text = Number((seconds / size).toPrecision(2)) + " " + unit;
      fill(row, "wall_time_median", cell.querySelector(".x").textContent, cell.dataset.v, mark + " · " + text + " in all");
    }
  }

  function filterRows() {
    for (const row of Table.rows()) {
      row.hidden = ["track", "family", "functional"].some((key) => {
        const chosen = listed("r." + key);
        return chosen.length && !chosen.includes(row.dataset[key] || "none");
      });
    }
  }

  function update() {
    filterRows();
    const samples = filtering() || listed("w").length > 0 || weighted;
    if (samples && board === null) {
      Site.load(section.dataset.samples, () => { board = window.BOARD; update(); },
        () => Table.say("The scores of single structures could not be loaded."));
      return;
    }
    restore();
    const counter = document.getElementById("kept");
    counter.textContent = "";
    if (board) {
      const models = Table.shown().map((row) => Number(row.dataset.row));
      const kept = filtering() ? keptSamples(models) : board.ids.map((_, i) => i);
      if (filtering()) {
        counter.textContent = kept.length + " of " + board.ids.length + " kept";
        document.getElementById("structures").open = true;
        recompute(kept);
      }
      weigh(kept);
    }
    total();
    section.dataset.ready = "1";
    if (state.get("sort")) Table.sortAgain();
    else if (filtering()) { Table.sort("score", true); state.delete("sort"); Site.keep(state); }
  }

  document.addEventListener("columns", () => { if (board) update(); });
  wire();
  update();
})();
