"use strict";
const told = document.getElementById("told");

// A click on a column's name sorts by it, first the way that puts the larger numbers on top; empty cells stay below.
function sortBy(table, column, button) {
  const head = button.closest("th");
  const numeric = !table.querySelector(`tbody tr > :nth-child(${column + 1}).text, tbody tr > th:nth-child(${column + 1})`);
  const before = head.getAttribute("aria-sort");
  const up = before ? before === "descending" : !numeric;
  const value = (row) => row.children[column].dataset.value;
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
    return up ? order : -order;
  });
  body.append(...rows);
  for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  told.textContent = `Sorted by ${button.textContent}, ${up ? "ascending" : "descending"}`;
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead button").forEach((button, column) => {
    button.addEventListener("click", () => sortBy(table, column, button));
  });
}

for (const box of document.querySelectorAll("input[data-method]")) {
  const toggle = () => document.body.classList.toggle(`off-${box.dataset.method}`, !box.checked);
  box.addEventListener("change", () => {
    toggle();
    told.textContent = `${box.parentElement.textContent.trim()} ${box.checked ? "shown" : "hidden"}`;
  });
  toggle(); // a browser may bring back the boxes as they were
}

document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([document.getElementById("rows").textContent], { type: "application/json" }));
  link.download = "rows.json";
  link.click();
  URL.revokeObjectURL(link.href);
});
