"use strict";

// Tables: a click on a column's head sorts by it, a second click reverses the order.
const order = new Intl.Collator(undefined, { numeric: true });
const key = ({ cells }, column) =>
  cells[column].dataset.value ?? cells[column].textContent.trim().replace("\u2212", "-");

for (const button of document.querySelectorAll("th > button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const rising = head.ariaSort !== "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.ariaSort = rising ? "ascending" : "descending";
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows].sort((one, two) => {
      const [a, b] = [key(one, head.cellIndex), key(two, head.cellIndex)];
      if (a === "–" || b === "–") return (a === "–") - (b === "–");
      const found = isNaN(a) || isNaN(b) ? order.compare(a, b) : a - b;
      return rising ? found : -found;
    });
    body.append(...rows);
  });
}
