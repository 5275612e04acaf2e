"use strict";
(function () {
  for (const element of document.querySelectorAll(".tools")) element.hidden = false;

  const table = document.getElementById("scores");
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.querySelectorAll("th"));
  heads.forEach(function (head) {
    const column = head.cellIndex;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.append(button);
    button.addEventListener("click", function () {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
      const numeric = head.classList.contains("num");
      const compare = numeric ? (a, b) => Number(key(a)) - Number(key(b)) : (a, b) => key(a).localeCompare(key(b));
      const rows = Array.from(body.rows).sort((a, b) => (down ? -compare(a, b) : compare(a, b)));
      body.append(...rows);
    });
  });

  const filter = document.getElementById("filter");
  filter.addEventListener("input", function () {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });

  const choices = Array.from(document.querySelectorAll("select[data-choice]"));
  function choose() {
    for (const example of document.querySelectorAll(".example")) {
      example.hidden = !choices.every((c) => c.value === "" || example.dataset[c.dataset.choice] === c.value);
    }
    for (const details of document.querySelectorAll(".task-examples")) {
      const n = details.querySelectorAll(".example:not([hidden])").length;
      details.hidden = n === 0;
      details.querySelector(".count").textContent = n;
    }
  }
  for (const choice of choices) choice.addEventListener("change", choose);
})();
