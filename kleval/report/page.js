"use strict";
(function () {
  let figures = null; // by id, once they are read
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function themed(layout, small) {
    const font = { family: getComputedStyle(document.body).fontFamily, size: small ? 11 : 13, color: colour("--muted") };
    const axis = { gridcolor: colour("--grid"), linecolor: colour("--axis"), tickcolor: colour("--axis"), zeroline: false, fixedrange: true };
    return Object.assign({}, layout, {
      showlegend: false, hovermode: "closest", dragmode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: font,
      margin: small ? { l: 32, r: 8, t: 8, b: 24 } : layout.margin,
      xaxis: Object.assign({}, layout.xaxis, axis, { showline: true, showgrid: false, ticks: "outside", ticklen: 4 }),
      yaxis: Object.assign({}, layout.yaxis, axis),
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--axis"), font: { color: colour("--ink"), size: 13 }, align: "left" },
    });
  }

  // Labels that would run into each other are left out, counted from the last.
  function thinned(axis, width, size) {
    const place = (value) => (axis.type === "log" ? Math.log10(value) : value);
    const scale = width / (axis.range[1] - axis.range[0]);
    let free = Infinity;
    const text = axis.ticktext.slice();
    for (let i = text.length - 1; i >= 0; i--) {
      const at = (place(axis.tickvals[i]) - axis.range[0]) * scale;
      const half = (text[i].length * size * 0.56 + 6) / 2;
      if (at + half > free) text[i] = "";
      else free = at - half;
    }
    return Object.assign({}, axis, { ticktext: text, tickangle: 0 });
  }

  function draw(div) {
    const figure = figures[div.id];
    const small = div.closest(".panel") !== null;
    const layout = themed(figure.layout, small);
    layout.width = div.clientWidth;
    layout.height = div.clientHeight;
    layout.xaxis = thinned(layout.xaxis, layout.width - layout.margin.l - layout.margin.r, small ? 11 : 13);
    div.classList.add("drawn");
    Plotly.react(div.querySelector(".live"), figure.data, layout, { displayModeBar: false });
  }

  // Every figure is there as a drawing (`.still`), which print shows too. Its script, 5 MB that a browser takes half a second to read,
  // waits with the figures' points until a pointer or the keyboard comes to one; then those near the screen answer to the pointer, one
  // after the other.
  let loading = null;
  function load() {
    loading ??= Promise.all(["figures", "plotly"].map((id) => unpacked(document.getElementById(id)))).then(function (texts) {
      figures = JSON.parse(texts[0]);
      const script = document.createElement("script");
      script.textContent = texts[1];
      document.body.append(script);
    });
    return loading;
  }
  const near = new Set();
  let drawing = false;
  async function drawNear() {
    if (drawing) return;
    drawing = true;
    await load();
    for (const div of near) {
      await new Promise((then) => setTimeout(then));
      if (!div.classList.contains("drawn")) draw(div);
      near.delete(div);
    }
    drawing = false;
  }
  function come(event) {
    if (!(event.target instanceof Element) || !event.target.closest("[data-legend]")) return;
    for (const name of ["pointerover", "focusin"]) document.removeEventListener(name, come);
    watch(".figure");
  }
  function watch(which) {
    const watching = new IntersectionObserver(function (seen) {
      for (const { target, isIntersecting } of seen) {
        if (!isIntersecting) near.delete(target);
        else if (!target.classList.contains("drawn")) near.add(target);
      }
      if (near.size) drawNear();
    }, { rootMargin: "300px 0px" });
    for (const div of document.querySelectorAll(which)) watching.observe(div);
  }
  if (typeof DecompressionStream !== "undefined") {
    for (const name of ["pointerover", "focusin"]) document.addEventListener(name, come);
    // On a narrow screen the drawings' words are small, and points without a line have no drawing: those come by themselves.
    const which = window.innerWidth <= 640 ? ".figure" : ".figure:has(> .still:empty)";
    if (document.querySelector(which)) window.addEventListener("load", () => setTimeout(() => watch(which), 300));
  }
  const again = () => document.querySelectorAll(".figure.drawn").forEach(draw);
  dark.addEventListener("change", again);
  let width = window.innerWidth;
  window.addEventListener("resize", function () {
    if (window.innerWidth !== width) again();
    width = window.innerWidth;
  });

  // A legend entry is a button where its figure's traces carry its key: it takes them away and brings them back.
  for (const button of document.querySelectorAll("button[data-trace]")) {
    button.addEventListener("click", function () {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      load().then(function () {
        for (const div of button.closest("[data-legend]").querySelectorAll(".figure")) {
          for (const trace of figures[div.id].data) {
            if (trace.legendgroup === button.dataset.trace) trace.visible = shown;
          }
          draw(div);
        }
      });
    });
  }

  for (const element of document.querySelectorAll(".tools")) element.hidden = false;

  function sortable(table) {
    const body = table.tBodies[0];
    const heads = Array.from(table.tHead.querySelectorAll("th"));
    heads.forEach(function (head) {
      if (head.querySelector(".unseen")) return;
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
  }
  const table = document.getElementById("scores");
  if (table) sortable(table);

  // Headline metrics alone, unless all are asked for.
  const all = document.getElementById("all-metrics");
  if (all) {
    const show = () => table.classList.toggle("headline", !all.checked);
    all.addEventListener("change", show);
    show();
  }
})();
