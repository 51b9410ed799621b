// The table of a board: sorting, columns, and what can be taken from it as CSV, LaTeX, BibTeX, link.
"use strict";
(function () {
  const table = document.getElementById("models");
  const body = table.tBodies[0];
  const heads = () => [...table.tHead.rows[0].cells];
  const said = document.getElementById("said");
  const state = Site.state();
  const Table = (window.Table = { table, state, heads, rows: () => [...body.rows] });

  Table.position = (key) => heads().findIndex((head) => head.dataset.key === key);
  Table.text = (cell) => (cell.querySelector(".x") || cell).textContent.trim();
  Table.shown = () => Table.rows().filter((row) => !row.hidden);

  // The value by which a cell is sorted: its number, or its text.
  function value(row, position) {
    const cell = row.cells[position];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = Table.text(cell);
    return text === "—" ? null : text;
  }

  function compare(first, second) {
    if (first === null || second === null) return (first === null) - (second === null); // none: last
    if (typeof first === "number" && typeof second === "number") return first - second;
    return String(first).localeCompare(String(second));
  }

  Table.sort = (key, descending) => {
    const position = Table.position(key);
    if (position < 0) return;
    const sign = descending ? -1 : 1;
    const keyed = Table.rows().map((row) => [row, value(row, position)]);
    keyed.sort(([, a], [, b]) => (a === null || b === null ? compare(a, b) : sign * compare(a, b)));
    body.append(...keyed.map(([row]) => row));
    for (const head of heads()) head.removeAttribute("aria-sort");
    heads()[position].setAttribute("aria-sort", descending ? "descending" : "ascending");
    state.set("sort", (descending ? "-" : "") + key);
    Site.keep(state);
  };

  Table.sortAgain = () => {
    const sort = state.get("sort");
    if (sort) Table.sort(sort.replace(/^-/, ""), sort.startsWith("-"));
  };

  function sortable(head) {
    const label = head.querySelector(".label");
    const button = Site.element("button", { type: "button", class: "sort" }, label.textContent);
    label.replaceWith(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.better === "up" ? "descending" : "ascending";
      const next = now === null ? first : now === "ascending" ? "descending" : "ascending";
      Table.sort(head.dataset.key, next === "descending");
    });
  }

  // Columns: those of the table can be hidden, and every other metric of the board can be added.
  function addColumn(source) {
    const key = source.dataset.metric;
    const head = Site.element("th", { scope: "col", "data-key": key, "data-better": source.dataset.better, "data-added": "1" });
    head.append(Site.element("span", { class: "label" }, source.cells[0].textContent.trim()));
    table.tHead.rows[0].append(head);
    sortable(head);
    for (const row of Table.rows()) {
      const from = source.cells[1 + Number(row.dataset.row)];
      const cell = Site.element("td", {}, Site.element("span", { class: "x" }, from.childNodes[0].textContent.trim()));
      if (from.dataset.v !== undefined) cell.dataset.v = from.dataset.v;
      row.append(cell);
    }
  }

  Table.show = (key, shown) => {
    let position = Table.position(key);
    if (position < 0) {
      const source = [...document.querySelectorAll("#all-metrics tbody tr")].find((row) => row.dataset.metric === key);
      if (!source || !shown) return;
      addColumn(source);
      position = Table.position(key);
    }
    for (const row of [table.tHead.rows[0], ...Table.rows()]) row.cells[position].hidden = !shown;
    document.dispatchEvent(new Event("columns"));
  };

  function chooser() {
    const box = document.getElementById("columns");
    const initial = heads().map((head) => head.dataset.key);
    const others = [...document.querySelectorAll("#all-metrics tbody tr")]
      .filter((row) => !initial.includes(row.dataset.metric));
    const keys = [...heads().map((head) => [head.dataset.key, head.querySelector(".sort").textContent]),
      ...others.map((row) => [row.dataset.metric, row.cells[0].textContent.trim()])];
    const hidden = (state.get("hide") || "").split(",").filter(Boolean);
    const added = (state.get("show") || "").split(",").filter(Boolean);
    for (const [key, label] of keys) {
      if (key === "model") continue;
      const box_ = Site.element("input", { type: "checkbox", value: key });
      box_.checked = initial.includes(key) ? !hidden.includes(key) : added.includes(key);
      if (box_.checked !== initial.includes(key)) Table.show(key, box_.checked);
      box_.addEventListener("change", () => {
        Table.show(key, box_.checked);
        const boxes = [...box.querySelectorAll("input")];
        const put = (name, listed) => (listed.length ? state.set(name, listed.join(",")) : state.delete(name));
        put("hide", boxes.filter((b) => !b.checked && initial.includes(b.value)).map((b) => b.value));
        put("show", boxes.filter((b) => b.checked && !initial.includes(b.value)).map((b) => b.value));
        Site.keep(state);
      });
      box.append(Site.element("label", { title: label }, box_, " " + label));
    }
  }

  // What is taken away is the table as it is shown: its rows, columns and order.
  Table.cells = () => {
    const kept = heads().map((head, k) => [head, k]).filter(([head]) => !head.hidden);
    const header = kept.map(([head]) => (head.querySelector(".sort") || head).textContent.trim());
    const rows = Table.shown().map((row) => kept.map(([, k]) => {
      const cell = row.cells[k];
      const small = cell.querySelector("small");
      return { text: Table.text(cell), small: small ? small.textContent.trim() : "" };
    }));
    return { keys: kept.map(([head]) => head.dataset.key), header, rows };
  };

  Table.csv = () => {
    const { header, rows } = Table.cells();
    const quoted = (text) => {
      // a program of tables would compute what begins like a formula
      const inert = /^[=+\-@\t\r]/.test(text) && !/^[+-]?\d/.test(text) ? "'" + text : text;
      return /[",\n]/.test(inert) ? '"' + inert.replaceAll('"', '""') + '"' : inert;
    };
    const lines = [header, ...rows.map((row) => row.map((c) => (c.text === "—" ? "" : c.text + (c.small ? " " + c.small : ""))))];
    return lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  };

  const TEX = { "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", $: "\\$", "&": "\\&", "#": "\\#", _: "\\_", "%": "\\%",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "—": "---", "–": "--", "↑": "$\\uparrow$", "↓": "$\\downarrow$",
    "Å": "\\AA{}", "²": "$^2$", "°": "$^\\circ$", "−": "$-$", "≈": "$\\approx$", "·": "$\\cdot$" };
  Table.tex = (text) => [...text].map((c) => TEX[c] || c).join("");

  Table.latex = () => {
    const { header, keys, rows } = Table.cells();
    const text = new Set(["model", "track", "functional", "training", "ties", "front"]);
    const line = (cells) => "  " + cells.join(" & ") + " \\\\";
    return [
      "% needs \\usepackage{booktabs}; " + Site.plain(document.querySelector("#board h2").textContent),
      "\\begin{tabular}{" + keys.map((key) => (text.has(key) ? "l" : "r")).join("") + "}", "  \\toprule",
      line(header.map(Table.tex)), "  \\midrule",
      ...rows.map((row) => line(row.map((c) => Table.tex(c.text + (c.small ? " " + c.small : ""))))),
      "  \\bottomrule", "\\end{tabular}", ""].join("\n");
  };

  Table.say = (text) => { said.textContent = text; };

  function copy(text, name, kind, what) {
    const down = () => { Site.download(name, kind, text); Table.say(what + " was saved as " + name + "."); };
    const other = kind === "text/plain" ? () => Table.say(what + ": " + text) : down;
    if (!navigator.clipboard || kind === "text/csv") { other(); return; }
    navigator.clipboard.writeText(text).then(() => Table.say(what + " is on the clipboard."), other);
  }

  Site.plain = (text) => text.replace(/\s+/g, " ").trim();
  const actions = {
    link: () => copy(location.href, "link.txt", "text/plain", "The link to this view"),
    csv: () => copy(Table.csv(), "leaderboard.csv", "text/csv", "The table"),
    latex: () => copy(Table.latex(), "leaderboard.tex", "text/x-tex", "The table in LaTeX"),
    bibtex: () => copy(document.getElementById("bibtex").textContent, "leaderboard.bib", "text/x-bibtex", "The entry"),
    reset: () => { history.replaceState(null, "", location.pathname + location.search); location.reload(); },
  };

  document.getElementById("controls").hidden = false;
  heads().forEach(sortable);
  chooser();
  for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", actions[button.dataset.do]);
  Table.sortAgain();
  window.addEventListener("hashchange", () => { if (location.hash.startsWith("#?")) location.reload(); });
})();
