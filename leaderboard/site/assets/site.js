// On every page: the theme, the search, and what the other scripts share as window.Site.
"use strict";
(function () {
  const Site = (window.Site = {});

  // The theme of the device, unless the reader has chosen one; a browser may refuse storage.
  const store = {
    get: (key) => { try { return localStorage.getItem(key); } catch (_) { return null; } },
    set: (key, value) => { try { localStorage.setItem(key, value); } catch (_) { /* not kept */ } },
  };
  const chosen = store.get("theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  Site.dark = () => (document.documentElement.dataset.theme
    || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

  // The state of a view: name=value pairs in the location's hash.
  Site.state = () => new URLSearchParams(location.hash.startsWith("#?") ? location.hash.slice(2) : "");
  Site.keep = (state) => {
    const text = state.toString();
    history.replaceState(null, "", text ? "#?" + text : location.pathname + location.search);
  };

  // Data come as classic scripts, which also a page on a disk may load.
  Site.load = (address, then, failed) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = then;
    script.onerror = failed || (() => undefined);
    document.head.append(script);
  };

  Site.element = (tag, attributes, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  Site.download = (name, kind, text) => {
    const link = Site.element("a", { href: URL.createObjectURL(new Blob([text], { type: kind })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  function theme(tools) {
    const button = Site.element("button", { type: "button", id: "theme" });
    const label = () => { button.textContent = Site.dark() ? "Light" : "Dark"; };
    label();
    button.setAttribute("aria-label", "Change between light and dark");
    button.addEventListener("click", () => {
      document.documentElement.dataset.theme = Site.dark() ? "light" : "dark";
      store.set("theme", document.documentElement.dataset.theme);
      label();
      document.dispatchEvent(new Event("theme"));
    });
    tools.append(button);
  }

  // The search over models, structures, metrics and pages; its index is made when it is first used.
  function search(tools) {
    const root = document.body.dataset.root;
    const input = Site.element("input", { type: "search", id: "search", placeholder: "Search", "aria-label": "Search models, structures, metrics", autocomplete: "off" });
    const list = Site.element("ul", { id: "found" });
    tools.append(input, list);
    let index = null;
    function show() {
      list.replaceChildren();
      if (!index || !input.value.trim()) return;
      const hits = index.search(input.value, { prefix: true, fuzzy: 0.15, boost: { title: 2 } }).slice(0, 12);
      for (const hit of hits) {
        const link = Site.element("a", { href: root + hit.address }, hit.title);
        list.append(Site.element("li", {}, link, " ", Site.element("span", { class: "n" }, hit.kind)));
      }
      if (!hits.length) list.append(Site.element("li", { class: "soft" }, "Nothing found."));
    }
    input.addEventListener("focus", () => {
      if (index) return;
      Site.load(root + "assets/minisearch.js", () => Site.load(root + "data/search.js", () => {
        index = new MiniSearch({ fields: ["title", "text"], storeFields: ["title", "address", "kind"], tokenize: (text) => text.split(/[\s_\/-]+/) });
        index.addAll(window.SEARCH.map(([title, text, kind, address], id) => ({ id, title, text, kind, address })));
        show();
      }));
    }, { once: true });
    input.addEventListener("input", show);
    tools.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { input.value = ""; show(); }
      if (event.key === "Enter" && event.target === input && list.querySelector("a")) list.querySelector("a").click();
    });
  }

  document.addEventListener("DOMContentLoaded", () => {
    const tools = document.getElementById("tools");
    if (document.body.dataset.search) search(tools);
    theme(tools);
  });
})();
