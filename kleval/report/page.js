"use strict";
(function () {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function themed(layout, small) {
    const font = { family: getComputedStyle(document.body).fontFamily, size: small ? 11 : 13, color: colour("--muted") };
    const axis = { gridcolor: colour("--grid"), linecolor: colour("--axis"), tickcolor: colour("--axis") };
    return Object.assign({}, layout, {
      font: font,
      margin: small ? { l: 32, r: 8, t: 8, b: 24 } : layout.margin,
      xaxis: Object.assign({}, layout.xaxis, axis, { showline: true }),
      yaxis: Object.assign({}, layout.yaxis, axis),
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--axis"), font: { color: colour("--ink"), size: 13 }, align: "left" },
    });
  }

  function draw() {
    for (const div of document.querySelectorAll(".figure")) {
      const figure = figures[div.id];
      const small = div.closest(".panel") !== null;
      Plotly.react(div, figure.data, themed(figure.layout, small), { displayModeBar: false, responsive: true });
    }
  }
  draw();
  dark.addEventListener("change", draw);
  window.addEventListener("beforeprint", function () {
    root.classList.add("printing");
    for (const details of document.querySelectorAll("details.print-open")) details.open = true;
    for (const div of document.querySelectorAll(".figure")) {
      Plotly.relayout(div, { width: div.clientWidth, height: div.clientHeight });
    }
  });
  window.addEventListener("afterprint", function () {
    root.classList.remove("printing");
    for (const div of document.querySelectorAll(".figure")) Plotly.relayout(div, { width: null, height: null, autosize: true });
  });

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
