"use strict";
const announced = document.getElementById("status");
const tip = document.getElementById("tip");

// A click on a column's name sorts by it, first the way that puts the larger numbers on top; empty cells stay below.
function sortBy(table, column, button) {
  const head = button.closest("th");
  const numeric = !head.classList.contains("text");
  const before = head.getAttribute("aria-sort");
  const up = before ? before === "descending" : !numeric;
  const value = (row) => row.children[column].dataset.value;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
    return up ? order : -order;
  });
  table.tBodies[0].append(...rows);
  for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  announced.textContent = `Sorted by ${button.textContent}, ${up ? "ascending" : "descending"}`;
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead button").forEach((button, column) => {
    button.addEventListener("click", () => sortBy(table, column, button));
  });
}

// Boxes hide a method or a column everywhere.
for (const box of document.querySelectorAll("input[data-off]")) {
  const toggle = () => document.body.classList.toggle(box.dataset.off, !box.checked);
  box.addEventListener("change", () => {
    toggle();
    announced.textContent = `${box.parentElement.textContent.trim()} ${box.checked ? "shown" : "hidden"}`;
  });
  toggle(); // a browser may bring back the boxes as they were
}

// Parts of a figure show their names on pointing, and on focus: arrow keys go from part to part.
function showTip(part) {
  tip.textContent = part.getAttribute("aria-label");
  tip.hidden = false;
  const box = part.getBoundingClientRect();
  const left = Math.min(box.left + box.width / 2, innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${box.top > tip.offsetHeight + 8 ? box.top - tip.offsetHeight - 6 : box.bottom + 6}px`;
}

for (const picture of document.querySelectorAll("figure svg")) {
  const parts = [...picture.querySelectorAll("[id*='part-m'] > title")].map((title) => {
    const part = title.parentElement;
    part.setAttribute("aria-label", title.textContent);
    part.setAttribute("role", "img");
    part.setAttribute("tabindex", "-1");
    title.remove(); // or the browser shows it too
    for (const event of ["pointerenter", "focus"]) part.addEventListener(event, () => showTip(part));
    for (const event of ["pointerleave", "blur"]) part.addEventListener(event, () => { tip.hidden = true; });
    return part;
  });
  if (parts.length) picture.setAttribute("tabindex", "0");
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const shown = parts.filter((part) => part.getClientRects().length);
    if (event.key === "Escape") tip.hidden = true;
    if (!step || !shown.length) return;
    event.preventDefault();
    const at = shown.indexOf(document.activeElement);
    shown[at < 0 && step < 0 ? shown.length - 1 : (at + step + shown.length) % shown.length].focus();
  });
}
addEventListener("scroll", () => { // focus scrolls too, and the tip then moves with its part
  if (document.activeElement.closest("figure [aria-label]")?.id && !tip.hidden) showTip(document.activeElement);
  else tip.hidden = true;
}, true);

document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([document.getElementById("rows").textContent], { type: "application/json" }));
  link.download = "rows.json";
  link.click();
  URL.revokeObjectURL(link.href);
});

// A live page asks its server for the state of the runs; a server that has ended leaves the page as it is.
if (document.body.dataset.live) {
  setInterval(async () => {
    try {
      const state = await (await fetch("state")).text();
      if (state !== document.body.dataset.live) location.reload();
    } catch { /* the command has ended */ }
  }, 2000);
}
