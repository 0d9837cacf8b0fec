"use strict";
// Sorts the table of all figures by a column. Without JavaScript it is in the order of quality.
for (const table of document.querySelectorAll("table.figures")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.querySelectorAll("th[data-sort]"));
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => {
        const text = row.cells[column + 1].dataset.value;
        return text === undefined ? null : Number(text);
      };
      const compare = (one, other) => {
        const [a, b] = [value(one), value(other)];
        if (a === null || b === null) return (a === null) - (b === null);
        return up ? a - b : b - a;
      };
      body.append(...rows.slice().sort(compare));
    });
  });
}
