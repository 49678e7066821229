"use strict";
(() => {
  const root = document.documentElement;

  const theme = document.getElementById("theme");
  const dark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { theme.textContent = dark() ? "Light colours" : "Dark colours"; };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();

  const all = document.getElementById("open-all");
  if (all) {
    const details = [...document.querySelectorAll(".columns details")];
    const label = () => { all.textContent = details.every((d) => d.open) ? "Close all" : "Open all"; };
    all.hidden = false;
    all.addEventListener("click", () => {
      const open = !details.every((d) => d.open);
      for (const d of details) d.open = open;
      label();
    });
    for (const d of details) d.addEventListener("toggle", label);
    label();
  }

  const value = (row, index, numeric) => {
    const cell = row.cells[index];
    const text = cell.dataset.v ?? cell.textContent.trim();
    return numeric ? (text === "" ? NaN : Number(text)) : text;
  };
  const collator = new Intl.Collator(undefined, { numeric: true });
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    const groups = table.tBodies.length > 1 || table.dataset.sortable === "groups";
    heads.forEach((head, index) => {
      if (!head.dataset.sort) return;
      const numeric = head.dataset.sort === "number";
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      if (!head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) if (other.dataset.sort) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const items = groups ? [...table.tBodies] : [...table.tBodies[0].rows];
        const keyed = items.map((item) => [value(groups ? item.rows[0] : item, index, numeric), item]);
        keyed.sort(([a], [b]) => {
          if (!numeric) return up ? collator.compare(a, b) : collator.compare(b, a);
          if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
          return up ? a - b : b - a;
        });
        const home = groups ? table : table.tBodies[0];
        home.append(...keyed.map(([, item]) => item));
      });
    });
  }
})();
