"use strict";
// Write the table as `dayfold audit` does: the same columns and quotes, no formulas.
const columns = ["image", "path", "label", "suggested", "score"];
const rows = [...document.querySelectorAll("li[data-image]")];
const decision = (row) => row.querySelector("select").value;
const cell = (text) => {
  const safe = /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
  return /[",\r\n]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
};

function count() {
  const decided = rows.filter(decision).length;
  document.getElementById("decided").textContent = `${decided} of ${rows.length} decided`;
}

function save(event) {
  const lines = rows.map((row) =>
    [...columns.map((name) => row.dataset[name]), decision(row)].map(cell).join(","));
  const text = [[...columns, "decision"].join(","), ...lines, ""].join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = event.currentTarget.dataset.file;
  link.click();
  URL.revokeObjectURL(link.href);
}

document.querySelector("ul").addEventListener("change", count);
document.getElementById("save").addEventListener("click", save);
count();
