"use strict";

// Legends: a button a line, which hides and shows it in the charts of its figure.
for (const legend of document.querySelectorAll(".legend")) {
  const buttons = [...legend.querySelectorAll("[data-series]")];
  const apply = () => {
    const shown = new Map(buttons.map((one) => [one.dataset.series, one.ariaPressed === "true"]));
    for (const mark of legend.closest("figure").querySelectorAll("svg [data-series]")) {
      mark.classList.toggle("off", !shown.get(mark.dataset.series));
    }
  };
  legend.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    if (button.dataset.all) for (const one of buttons) one.ariaPressed = button.dataset.all;
    else button.ariaPressed = String(button.ariaPressed !== "true");
    apply();
  });
  apply();
}

for (const choice of document.querySelectorAll("[data-choice]")) {
  choice.addEventListener("change", () => {
    for (const one of choice.closest("figure").querySelectorAll("[data-measure]")) {
      one.hidden = one.dataset.measure !== choice.value;
    }
  });
}

// Tables: a click on a column's head sorts by it, a second one the other way round.
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
