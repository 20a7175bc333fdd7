// Sorting, search and enlarging. Without this script the page shows everything, in its own order.
"use strict";

// "1,234", "89.60" → number; a dash → NaN
const numberIn = (text) => parseFloat(text.replaceAll(",", ""));

function sortBy(table, column, header) {
  const down = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => {
    const text = row.cells[column].textContent.trim();
    return { row, text, number: numberIn(text) };
  });
  const numeric = !header.classList.contains("text");
  keyed.sort((a, b) => {
    if (!numeric) return (down ? -1 : 1) * a.text.localeCompare(b.text, "en", { numeric: true });
    if (isNaN(a.number) || isNaN(b.number)) return isNaN(a.number) - isNaN(b.number);    // what is missing stands last
    return (down ? -1 : 1) * (a.number - b.number);
  });
  body.append(...keyed.map((k) => k.row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", () => sortBy(table, column, header));
    header.replaceChildren(button);
  });
}

const search = document.getElementById("search");
if (search) {
  const rows = [...document.getElementById("measured").tBodies[0].rows];
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const said = search.closest("p").querySelector("output");
  search.closest("p").hidden = false;
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => texts.get(row).includes(word));
      shown += !row.hidden;
    }
    said.textContent = words.length ? `${shown} of ${rows.length}` : "";
  });
}

const large = document.getElementById("large");
for (const image of document.querySelectorAll(".picture img")) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", `Enlarge: ${image.alt}`);
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => {
    const copy = large.querySelector("img");
    copy.src = image.src;
    copy.alt = image.alt;
    large.querySelector("p").textContent = image.alt;
    large.showModal();
  });
}
large.addEventListener("click", (event) => { if (event.target === large) large.close(); });    // beside the figure
