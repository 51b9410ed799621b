// The 3D view of a structure: start, reference and one model's answer, overlaid. By 3Dmol.
"use strict";
(function () {
  const structures = JSON.parse(document.getElementById("structures").textContent);
  const which = document.getElementById("which");
  const boxes = { start: "with-start", reference: "with-reference", model: "with-model" };
  for (const each of structures.filter((s) => s.kind === "model")) which.append(Site.element("option", {}, each.label));
  const state = Site.state();
  if (state.get("model")) which.value = state.get("model");
  if (!which.value && which.options.length) which.selectedIndex = 0;

  document.getElementById("view").hidden = false;
  const box = document.getElementById("viewer");
  let viewer = null;
  try {
    viewer = $3Dmol.createViewer(box, { antialias: true });
  } catch (_) { /* said below */ }
  if (!viewer) {
    box.replaceWith(Site.element("p", {}, "This browser has no WebGL, which the 3D view needs; the tables below have the same numbers."));
    return;
  }

  const CORNERS = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]];
  const EDGES = [[0, 1], [0, 2], [0, 3], [1, 4], [1, 5], [2, 4], [2, 6], [3, 5], [3, 6], [4, 7], [5, 7], [6, 7]];

  function draw(keepView) {
    const dark = Site.dark();
    const colours = { start: dark ? "#8b8f95" : "#9a9da2", reference: dark ? "#e6e6e3" : "#1b1c1e", model: dark ? "#7db9ee" : "#0a5a9c" };
    viewer.removeAllModels();
    viewer.removeAllShapes();
    viewer.setBackgroundColor(dark ? "#16181b" : "#ffffff");
    const shown = [];
    for (const each of structures) {
      if (!document.getElementById(boxes[each.kind]).checked) continue;
      if (each.kind === "model" && each.label !== which.value) continue;
      shown.push(each.label);
      const corner = (c) => {
        const place = [0, 1, 2].map((k) => c[0] * each.lattice[0][k] + c[1] * each.lattice[1][k] + c[2] * each.lattice[2][k]);
        return { x: place[0], y: place[1], z: place[2] };
      };
      for (const [from, to] of EDGES) {
        viewer.addCylinder({ start: corner(CORNERS[from]), end: corner(CORNERS[to]), radius: 0.025, color: colours[each.kind] });
      }
      const model = viewer.addModel();
      model.addAtoms(each.atoms.map(([elem, x, y, z]) => ({ elem, x, y, z, bonds: [], bondOrder: [] })));
      // the reference in the colours of the elements, the others in one colour each
      const sphere = each.kind === "reference" ? { scale: 0.3, colorscheme: "Jmol" }
        : { scale: each.kind === "model" ? 0.22 : 0.16, color: colours[each.kind], opacity: each.kind === "model" ? 0.8 : 0.6 };
      model.setStyle({}, { sphere });
    }
    if (!keepView) { viewer.zoomTo(); viewer.rotate(25, "y"); viewer.rotate(15, "x"); }
    viewer.render();
    document.getElementById("legend").textContent = "Reference: colours of the elements; model: blue; start: grey. Shown: " + (shown.join(", ") || "nothing") + ".";
    box.dataset.ready = String((Number(box.dataset.ready) || 0) + 1);
  }

  const turns = {
    left: () => viewer.rotate(-15, "y"), right: () => viewer.rotate(15, "y"),
    up: () => viewer.rotate(-15, "x"), down: () => viewer.rotate(15, "x"),
    closer: () => viewer.zoom(1.2), farther: () => viewer.zoom(1 / 1.2), reset: () => draw(false),
  };
  const turn = (name) => { turns[name](); viewer.render(); box.dataset.view = viewer.getView().map((x) => x.toFixed(3)).join(","); };
  for (const button of document.querySelectorAll("[data-turn]")) button.addEventListener("click", () => turn(button.dataset.turn));
  const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", "+": "closer", "-": "farther", "0": "reset" };
  box.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    turn(keys[event.key]);
  });
  which.addEventListener("change", () => { state.set("model", which.value); Site.keep(state); draw(true); });
  for (const id of Object.values(boxes)) document.getElementById(id).addEventListener("change", () => draw(true));
  document.addEventListener("theme", () => draw(true));
  draw(false);
})();
