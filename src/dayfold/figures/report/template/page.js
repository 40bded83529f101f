"use strict";

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const values = Object.fromEntries(
  Object.entries(read("values")).map(([name, { keys, rows }]) => [
    name,
    rows.map((row) => Object.fromEntries(row.map((value, at) => [keys[at], value]))),
  ]),
);
const charts = new Map();

// Charts: a specification each, drawn as SVG, so that it takes its colours from the style sheet.
for (const [name, spec] of Object.entries(read("specs"))) {
  const place = document.querySelector(`[data-chart="${name}"]`);
  if (!place) continue;
  const source = spec.data.name;
  const drawn = vegaEmbed(place, { ...spec, datasets: { [source]: values[source] } }, {
    actions: false,
    defaultStyle: false,
    renderer: "svg",
    tooltip: { disableDefaultStyle: true },
  });
  drawn.then(
    ({ view }) => {
      charts.set(name, view);
      place.dataset.drawn = "yes";
      for (const legend of document.querySelectorAll(`[data-legend~="${name}"]`)) apply(legend);
    },
    (error) => {
      place.textContent = `This chart cannot be drawn here: ${error.message}`;
    },
  );
}

// Legends: a button a line, which takes it away and brings it back in every chart of the legend.
function apply(legend) {
  const buttons = [...legend.querySelectorAll("[data-series]")];
  const hidden = buttons.filter((one) => one.getAttribute("aria-pressed") === "false");
  for (const name of legend.dataset.legend.split(" ")) {
    const view = charts.get(name);
    if (!view) continue;
    view.signal("hidden", hidden.map((one) => one.dataset.series)).runAsync();
    if (legend.dataset.coloured !== name) continue;
    const colour = view.scale("color");
    for (const one of buttons) one.style.setProperty("--series", colour(one.dataset.series));
  }
}

for (const legend of document.querySelectorAll("[data-legend]")) {
  legend.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    if (button.dataset.series !== undefined) {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") === "false"));
    } else {
      for (const one of legend.querySelectorAll("[data-series]")) {
        one.setAttribute("aria-pressed", button.dataset.all);
      }
    }
    apply(legend);
  });
}

for (const choice of document.querySelectorAll("[data-measure]")) {
  choice.addEventListener("change", () => {
    charts.get(choice.dataset.measure)?.signal("measure", choice.value).runAsync();
  });
}

// Tables: a click on a column's head sorts by it, a second one the other way round.
const order = new Intl.Collator(undefined, { numeric: true });

function key(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value ?? cell.textContent.trim().replace("\u2212", "-");
}

for (const button of document.querySelectorAll("th > button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const rising = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows].sort((one, two) => {
      const [a, b] = [key(one, head.cellIndex), key(two, head.cellIndex)];
      if (a === "–" || b === "–") return (a === "–") - (b === "–");
      const numbers = [Number(a), Number(b)];
      const found = numbers.some(Number.isNaN) ? order.compare(a, b) : numbers[0] - numbers[1];
      return rising ? found : -found;
    });
    body.append(...rows);
  });
}

// Commands: copied by a button, where the browser lets a page do so.
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed here";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
