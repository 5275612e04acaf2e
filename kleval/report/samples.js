"use strict";
// The sample browser. Everything that a model or a data set wrote goes into the page as text (textContent), never as HTML.
(async function () {
  const browser = document.getElementById("browser");
  if (!browser) return;
  const byId = (name) => document.getElementById(`samples-${name}`);
  const status = byId("count");
  if (typeof DecompressionStream === "undefined") {
    status.textContent = "This browser cannot unpack the samples (it has no DecompressionStream): a newer one shows them.";
    return;
  }
  const PAGE = 25;
  const NAMES = {
    failed: "Failed", wrong: "Wrong", partial: "Partly right", right: "Right", unscored: "Not scored", measured: "Gain",
    cut: "Cut by the budget", empty: "Empty", looped: "Looped", reasoning_cut: "Only reasoning",
  };
  const TONES = { right: "ok", wrong: "bad", failed: "bad" };

  const index = JSON.parse(await unpacked(byId("index")));
  const { models, tasks, lengths, verdicts, broken, prompts } = index;
  const samples = index.samples.map(function ([task, length, number, id, repeat, answers], at) {
    const of = answers.map(([model, verdict, score, flags, block, line, prompt, snippet]) => (
      { model, verdict: verdicts[verdict], score, flags, place: [block, line], prompt, snippet }));
    return { at, task, length, number, id, repeat, answers: of };
  });

  // A block's lines, unpacked once; and in lower case, to be searched.
  const blocks = new Map();
  const lower = new Map();
  function lines(block) {
    if (!blocks.has(block)) blocks.set(block, unpacked(byId(block)).then((text) => text.split("\n")));
    return blocks.get(block);
  }
  async function lowered(block) {
    if (!lower.has(block)) lower.set(block, (await lines(block)).map((line) => line.toLowerCase()));
    return lower.get(block);
  }
  const read = async ([block, line]) => JSON.parse((await lines(block))[line]);

  function element(tag, name, ...inside) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...inside.filter((one) => one !== null && one !== undefined && one !== ""));
    return made;
  }
  const visible = (text) => text.replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "\ufffd");
  const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

  // ---- what is shown

  const inputs = Object.fromEntries(["search", "task", "length", "result", "model", "beside", "flips", "order"].map((name) => [name, byId(name)]));
  const option = (value, text) => Object.assign(document.createElement("option"), { value, textContent: text });
  tasks.forEach((task, i) => inputs.task.append(option(i, task)));
  lengths.forEach(([, name], i) => inputs.length.append(option(i, name)));
  models.forEach(function ({ label }, i) {
    inputs.model.append(option(i, label));
    inputs.beside.append(option(i, `and ${label}`));
  });
  const there = new Set();
  for (const sample of samples) {
    for (const { verdict, flags } of sample.answers) {
      there.add(verdict);
      broken.forEach((name, i) => flags & (1 << i) && there.add(name));
    }
  }
  for (const name of [...verdicts, ...broken]) if (there.has(name)) inputs.result.append(option(name, NAMES[name]));
  inputs.task.hidden = tasks.length < 2;
  inputs.length.hidden = lengths.length < 2;
  inputs.model.hidden = inputs.beside.hidden = inputs.flips.hidden = models.length < 2;

  function shownModels() {
    if (inputs.model.value === "") return models.map((_, i) => i);
    const chosen = [Number(inputs.model.value)];
    if (inputs.beside.value !== "" && inputs.beside.value !== inputs.model.value) chosen.push(Number(inputs.beside.value));
    return chosen;
  }
  const answersOf = (sample, chosen) => chosen.map((model) => sample.answers.find((a) => a.model === model)).filter(Boolean);

  function flipped(answers, way) {
    const scores = answers.map((a) => a.score).filter((score) => score !== null);
    if (scores.length < 2) return false;
    const [first, second] = scores;
    if (way === "down" || way === "up") return answers.length === 2 && (way === "down" ? first > second : first < second);
    return scores.some((score) => score !== first);
  }

  let found = samples;
  let page = 0;
  let turn = 0; // of a search: a later one ends it
  async function choose() {
    const mine = ++turn;
    const chosen = shownModels();
    const { task, length, result, flips } = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
    inputs.beside.disabled = inputs.model.value === "";
    const two = chosen.length === 2;
    for (const way of inputs.flips.options) way.disabled = (way.value === "up" || way.value === "down") && !two;
    const flag = broken.indexOf(result);
    let kept = samples.filter(function (sample) {
      const answers = answersOf(sample, chosen);
      return answers.length > 0
        && (task === "" || sample.task === Number(task))
        && (length === "" || sample.length === Number(length))
        && (result === "" || answers.some((a) => (flag >= 0 ? a.flags & (1 << flag) : a.verdict === result)))
        && (flips === "" || flipped(answers, flips));
    });
    const words = inputs.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length) kept = await searched(kept, words, chosen, mine);
    if (kept === null || mine !== turn) return;
    found = ordered(kept, inputs.order.value, chosen);
    page = 0;
    render();
  }

  // By the mean score of the shown answers, those without a score last; else as they are.
  function ordered(kept, order, chosen) {
    if (order === "") return kept;
    const mean = function (sample) {
      const scores = answersOf(sample, chosen).map((a) => a.score).filter((score) => score !== null);
      return scores.length ? scores.reduce((sum, score) => sum + score, 0) / scores.length : null;
    };
    const by = (order === "low" ? 1 : -1);
    return kept.map((sample) => [mean(sample), sample])
      .sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : by * (a - b)))
      .map(([, sample]) => sample);
  }

  // Those whose task, id, prompt or shown answers hold every word; null where another search has begun.
  async function searched(kept, words, chosen, mine) {
    const coded = words.map((word) => JSON.stringify(word).slice(1, -1));
    const result = [];
    for (let i = 0; i < kept.length; i++) {
      const sample = kept[i];
      const answers = answersOf(sample, chosen);
      const places = [...answers.map((a) => a.place), ...new Set(answers.map((a) => a.prompt))].map((p) => (Array.isArray(p) ? p : prompts[p]));
      const texts = [`${tasks[sample.task]} ${sample.id}`.toLowerCase()];
      for (const [block, line] of places) {
        if (!lower.has(block)) {
          status.textContent = `Searching ${i.toLocaleString("en")} of ${count(kept.length, "sample")} …`;
          await lowered(block);
          if (mine !== turn) return null;
        }
        texts.push(lower.get(block)[line]);
      }
      if (coded.every((word) => texts.some((text) => text.includes(word)))) result.push(sample);
    }
    return result;
  }

  // ---- the list

  const list = byId("list");
  list.style.setProperty("--n", Math.min(models.length, 3));
  const pager = browser.querySelector(".pager");
  function mark(answer) {
    const tone = TONES[answer.verdict] || "";
    const shown = answer.verdict === "measured" ? answer.score?.toFixed(3) : (answer.score * 100).toFixed(1);
    const score = answer.score === null ? "" : ` ${shown.replace("-", "\u2212")}`;
    return element("span", `mark ${tone}`, NAMES[answer.verdict] + score);
  }
  function dot(model) {
    const made = element("span", "dot");
    made.style.background = models[model].colour;
    return made;
  }
  const linkTo = (sample, answer) => "#sample=" + [models[answer.model].run, models[answer.model].model, sample.id, sample.repeat].map(encodeURIComponent).join("/");

  function render() {
    const chosen = shownModels();
    const from = page * PAGE;
    list.start = from + 1;
    list.replaceChildren(...found.slice(from, from + PAGE).map((sample) => entry(sample, answersOf(sample, chosen))));
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    status.textContent = found.length === samples.length ? count(found.length, "sample") : `${found.length.toLocaleString("en")} of ${count(samples.length, "sample")}`;
    pager.hidden = pages < 2;
    byId("page").textContent = `Page ${page + 1} of ${pages}`;
    byId("back").disabled = page === 0;
    byId("on").disabled = page + 1 >= pages;
  }

  function entry(sample, answers) {
    const name = `sample-${sample.at}`;
    const number = `#${sample.number}${sample.repeat ? `, repeat ${sample.repeat}` : ""}`;
    const results = element("span", "results", ...answers.map((answer) => element("span", "result", models.length > 1 ? dot(answer.model) : null, mark(answer))));
    for (const [i, answer] of answers.entries()) results.children[i].title = models[answer.model].label;
    const head = element("button", "head",
      element("span", "what", tasks[sample.task], element("span", "muted", ` ${lengths[sample.length][1]} ${number}`)),
      results,
      element("span", "snippet muted", visible(answers[0].snippet) || "–"));
    head.type = "button";
    head.setAttribute("aria-expanded", "false");
    head.setAttribute("aria-controls", name);
    const body = element("div", "body");
    body.id = name;
    body.hidden = true;
    const item = element("li", "", head, body);
    item.open = async function (shown, link) {
      head.setAttribute("aria-expanded", String(shown));
      body.hidden = !shown;
      item.classList.toggle("open", shown);
      if (!shown) return;
      if (!body.childElementCount) body.append(...(await opened(sample, answers)));
      if (link) history.replaceState(null, "", linkTo(sample, answers[0]));
    };
    head.addEventListener("click", () => item.open(body.hidden, true));
    return item;
  }

  byId("back").addEventListener("click", () => { page -= 1; render(); browser.scrollIntoView(); });
  byId("on").addEventListener("click", () => { page += 1; render(); browser.scrollIntoView(); });

  // ---- one sample

  // Text with needles (every second run) and references marked.
  function marked(runs, references) {
    const made = document.createDocumentFragment();
    runs.forEach(function (run, i) {
      if (!run) return;
      const into = i % 2 ? made.appendChild(element("mark")) : made;
      into.append(...strong(visible(run), references));
    });
    return made;
  }
  function strong(text, references) {
    const wanted = references.filter((reference) => reference.trim().length > 1);
    const made = [];
    let at = 0;
    const low = text.toLowerCase();
    if (low.length !== text.length) return [text];
    for (let n = 0; n < 200; n++) {
      let begin = -1;
      let size = 0;
      for (const reference of wanted) {
        const place = low.indexOf(reference.toLowerCase(), at);
        if (place >= 0 && (begin < 0 || place < begin || (place === begin && reference.length > size))) [begin, size] = [place, reference.length];
      }
      if (begin < 0) break;
      made.push(text.slice(at, begin), element("strong", "", text.slice(begin, begin + size)));
      at = begin + size;
    }
    return [...made, text.slice(at)];
  }
  function left(n) {
    return element("span", "cut", ` … ${count(n, "character")} left out … `);
  }
  function shown(excerpt, references, label, name) {
    const pre = element("pre", name);
    pre.tabIndex = 0;
    pre.setAttribute("role", "group");
    pre.setAttribute("aria-label", label);
    const [chars, parts] = excerpt;
    let at = 0;
    for (const [begin, runs] of parts) {
      if (begin > at) pre.append(left(begin - at));
      pre.append(marked(runs, references));
      at = begin + runs.reduce((sum, run) => sum + Array.from(run).length, 0);
    }
    if (at < chars) pre.append(left(chars - at));
    if (!chars) pre.append("(empty)");
    return pre;
  }
  const whole = (text) => [Array.from(text).length, [[0, [text]]]];
  const plain = ([, parts]) => parts.map(([, runs]) => runs.join("")).join(" … ");

  async function opened(sample, answers) {
    const made = [];
    const asked = [...new Set(answers.map((answer) => answer.prompt))];
    let references = [];
    for (const number of asked) {
      const question = await read(prompts[number]);
      references = question.references.map(plain);
      const of = asked.length > 1 ? ` of ${answers.filter((a) => a.prompt === number).map((a) => models[a.model].label).join(", ")}` : "";
      made.push(asking(question, number, references, of));
    }
    made.push(element("h3", "", "Expected"), shown(whole(references.join("\n") || "(nothing is given)"), [], "Expected", "expected"));
    const sides = element("div", "sides");
    for (const answer of answers) sides.append(side(sample, answer, await read(answer.place), references));
    made.push(sides);
    return made;
  }

  function asking(question, number, references, of) {
    const { prompt, prefix, missing } = question;
    if (!prompt) return element("p", "muted small", `The prompt${of} is ${missing}.`);
    const [chars, parts] = prompt;
    const needles = parts.reduce((sum, [, runs]) => sum + (runs.length - 1) / 2, 0);
    const title = `Prompt${of}: ${count(chars, "character")}${needles ? `, ${count(needles, "place")} marked` : ""}`;
    const pre = shown(prompt, references, `Prompt${of}`, "prompt");
    if (prefix) pre.append(element("span", "prefix", visible(prefix)));
    const details = element("details", "", element("summary", "", title), pre);
    details.open = true;
    const tools = element("p", "jumps");
    const jump = (mark, i) => {
      const button = element("button", "", `Marked ${i + 1}`);
      button.type = "button";
      button.addEventListener("click", () => { pre.scrollTop = mark.offsetTop - pre.offsetTop - pre.clientHeight / 3; });
      return button;
    };
    const end = element("button", "", "End");
    end.type = "button";
    end.addEventListener("click", () => { pre.scrollTop = pre.scrollHeight; });
    const jumps = () => tools.replaceChildren(...Array.from(pre.querySelectorAll("mark")).slice(0, 12).map(jump), end);
    jumps();
    const held = parts.reduce((sum, [, runs]) => sum + runs.reduce((n, run) => n + Array.from(run).length, 0), 0);
    if (browser.dataset.served !== undefined && held < chars) {
      const all = element("button", "", "Show the whole prompt");
      all.type = "button";
      all.addEventListener("click", async function () {
        const answer = await fetch(`prompt/${number}`);
        if (!answer.ok) {
          all.textContent = "The prompt is not there";
          return;
        }
        const text = await answer.text();
        const texts = parts.flatMap(([, runs]) => runs.filter((_, i) => i % 2));
        pre.replaceChildren(marked(cutAt(text, texts), references));
        if (prefix) pre.append(element("span", "prefix", visible(prefix)));
        all.remove();
        jumps();
      });
      tools.append(all);
    }
    details.append(tools);
    return details;
  }

  // A text in runs, every second one of them one of the needles, which are in order.
  function cutAt(text, needles) {
    const runs = [];
    let at = 0;
    for (const needle of needles) {
      const begin = text.indexOf(needle, at);
      if (begin < 0) continue;
      runs.push(text.slice(at, begin), needle);
      at = begin + needle.length;
    }
    return [...runs, text.slice(at)];
  }

  function side(sample, answer, details, references) {
    const model = models[answer.model];
    const link = element("a", "", "Link");
    link.href = linkTo(sample, answer);
    const made = element("article", "", element("header", "", dot(answer.model), element("b", "", model.label), mark(answer), element("span", "spacer"), link));
    const calls = details.calls.slice();
    const last = calls.pop();
    if (calls.length) {
      const before = element("details", "", element("summary", "", `${count(calls.length, "request")} before`));
      before.append(...calls.flatMap((call, i) => told(call, references, `Request ${i + 1}`)));
      made.append(before);
    }
    if (last) made.append(...told(last, references, last.kind === "judge" ? "The judge's reply" : "Response"));
    if (details.failure) {
      made.append(element("h3", "", "Failure"), shown(whole(`${details.failure.kind}: ${details.failure.message}`), [], "Failure", "failure"));
    }
    if (details.extracted !== null && details.extracted !== undefined) {
      made.append(element("h3", "", "Read out of it"), shown(whole(details.extracted), references, "Read out of it", "extracted"));
    }
    made.append(element("h3", "", "Why it scored so"), element("ul", "why", ...details.why.map((text) => element("li", "", visible(text)))));
    made.append(element("p", "muted small", details.facts.join(" · ")));
    return made;
  }

  function told(call, references, title) {
    const made = [element("h3", "", title, call.said ? element("span", "muted", ` · ${call.said}`) : null)];
    if (call.reasoning) made.push(element("details", "", element("summary", "", "Reasoning"), shown(call.reasoning, references, "Reasoning", "")));
    if (call.text) made.push(shown(call.text, references, title, "answer"));
    else if (call.failure) made.push(element("p", "muted small", visible(`${call.failure.kind}: ${call.failure.message}`)));
    else if (typeof call.logprob === "number") made.push(element("p", "muted small", `Log-likelihood ${call.logprob.toFixed(3)}`));
    else made.push(element("p", "muted small", "(empty)"));
    return made;
  }

  // ---- a link to one sample

  function linked() {
    if (!location.hash.startsWith("#sample=")) return;
    let wanted;
    try {
      wanted = location.hash.slice(8).split("/").map(decodeURIComponent);
    } catch {
      return;
    }
    const [run, model, id, repeat] = wanted;
    const which = models.findIndex((m) => m.run === run && m.model === model);
    const sample = samples.find((s) => s.id === id && String(s.repeat) === repeat && s.answers.some((a) => a.model === which));
    if (!sample) {
      status.textContent = `The linked sample (${visible(wanted.join(", "))}) is not on this page.`;
      return;
    }
    for (const input of Object.values(inputs)) input.value = "";
    turn += 1;
    found = samples;
    page = Math.floor(sample.at / PAGE);
    render();
    const item = list.children[sample.at % PAGE];
    item.open(true, false).then(() => item.scrollIntoView());
  }

  let waiting = 0;
  for (const input of Object.values(inputs)) input.addEventListener("change", choose);
  inputs.search.addEventListener("input", function () {
    clearTimeout(waiting);
    waiting = setTimeout(choose, 200);
  });
  browser.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  browser.querySelector("form").hidden = false;
  window.addEventListener("hashchange", linked);
  inputs.beside.disabled = true;
  await choose();
  linked();
  browser.dataset.ready = "";
})();
