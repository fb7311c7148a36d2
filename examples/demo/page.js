"use strict";

/* The cards are made of the scenarios, which the check in Python tries as
   well; see scenarios.py for what their fields mean. */

const PATIENCE = 5000; // ms
const NONCE = document.currentScript.nonce;

main();

async function main() {
  const demo = await (await fetch("scenarios.json")).json();
  document.getElementById("page-origin").textContent = location.origin;
  document.getElementById("api-origin").textContent = demo.api;

  const parts = [];
  for (const [task, names] of Object.entries(demo.tasks)) {
    const section = fromTemplate("task");
    const list = document.createElement("ul");
    const id = task.toLowerCase().replaceAll(" ", "-");
    document.getElementById("middlewares").append(section);
    label(section, section.querySelector("h2"), task, id);
    const entry = link(task, id);
    entry.append(list);
    document.getElementById("tasks").append(entry);
    for (const name of names) {
      const part = new Part(name, demo);
      section.append(part.element);
      list.append(part.entry);
      parts.push(part);
    }
  }
  const button = document.getElementById("try-all");
  button.onclick = oneAtATime(button, () => tryAll(parts));
  fitTheScreen();
  showWhereWeAre();
  // What was asked for was not there when the page came.
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

/* One run at a time, which the button shows: disabled, it would lose the
   focus. */
function oneAtATime(button, run) {
  let running = null;
  return () => {
    if (!running) {
      button.ariaDisabled = "true";
      running = run().finally(() => {
        button.ariaDisabled = null;
        running = null;
      });
    }
    return running;
  };
}

async function tryAll(parts) {
  const summary = document.getElementById("summary");
  const cards = parts.flatMap((part) => part.cards);
  // One sentence is enough for those who listen.
  document.getElementById("middlewares").ariaBusy = "true";
  let good = 0;
  for (const [index, card] of cards.entries()) {
    summary.textContent = `${index + 1} of ${cards.length} …`;
    summary.className = "";
    good += await card.run();
  }
  summary.textContent = `${good} of ${cards.length} are as they should be`;
  summary.className = good === cards.length ? "good" : "bad";
  document.getElementById("middlewares").ariaBusy = "false";
}

/* On a narrow screen the contents and the code are unfolded at need. */
function fitTheScreen() {
  const wide = matchMedia("(min-width: 60rem)"); // as in page.css
  const fit = () => {
    for (const details of document.querySelectorAll("#contents, .source")) {
      details.open = wide.matches;
    }
  };
  wide.onchange = fit;
  fit();
}

/* The contents show which part is read. */
function showWhereWeAre() {
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const entry = document.querySelector(`nav a[href="#${target.id}"]`);
        entry.ariaCurrent = isIntersecting ? "true" : null;
      }
    },
    { rootMargin: "-20% 0px -79%" }, // a line
  );
  for (const section of document.querySelectorAll("main section section")) {
    observer.observe(section);
  }
}

/* An entry of the contents. */
function link(text, id) {
  const entry = fromTemplate("entry");
  entry.querySelector("a").textContent = text;
  entry.querySelector("a").href = `#${id}`;
  return entry;
}

function label(section, heading, text, id) {
  heading.textContent = text;
  heading.id = `${id}-heading`;
  section.id = id;
  section.setAttribute("aria-labelledby", heading.id);
}

function fromTemplate(id) {
  const template = document.getElementById(id);
  return template.content.firstElementChild.cloneNode(true);
}

/* A middleware: its cards, and its entry in the contents. */
class Part {
  constructor(name, demo) {
    const { title, purpose } = demo.middlewares[name];
    this.element = fromTemplate("middleware");
    this.entry = link(name, name);
    label(this.element, this.element.querySelector("h3"), title, name);
    this.element.querySelector(".purpose").textContent = purpose;
    this.cards = demo.scenarios
      .filter((scenario) => scenario.middleware === name)
      .map((scenario) => new Card(scenario, demo, () => this.sum()));
    this.element.append(...this.cards.map((card) => card.element));
  }

  /* Show in the contents what came of it. */
  sum() {
    const bad = this.cards.some((card) => card.good === false);
    const all = this.cards.every((card) => card.good);
    const verdicts = this.entry.querySelector(".verdicts");
    verdicts.textContent = bad ? "✗" : all ? "✓" : "";
    verdicts.className = `verdicts ${bad ? "bad" : "good"}`;
  }
}

class Card {
  constructor(scenario, demo, tried) {
    this.scenario = scenario;
    this.tried = tried;
    this.url = demo.api + scenario.path;
    this.limit = demo.limit;
    this.element = fromTemplate("card");
    this.part("h4").textContent = scenario.title;
    this.part(".see").textContent = scenario.see;
    this.part(".source").append(...scenario.source.map(excerpt));
    this.part(".docs").href = scenario.docs;
    this.part(".docs").setAttribute("aria-label", `Docs: ${scenario.title}`);
    this.part(".method").textContent = `${scenario.method} ${scenario.path}`;
    this.part(".curl").textContent = scenario.curl;
    this.part(".try").setAttribute("aria-label", `Try: ${scenario.title}`);
    this.run = oneAtATime(this.part(".try"), () => this.try());
    this.part(".try").onclick = this.run;
    this.part(".visit").href = this.url;
    this.part(".visit").hidden = !scenario.sign_in;
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  /* Try it, show it, and say whether it is as it should be. */
  async try() {
    const { scenario } = this;
    this.clear();
    this.start = performance.now();
    let wrong;
    try {
      const origin = scenario.headers.Origin;
      if (scenario.relay) {
        wrong = differences(scenario.expect, await this.relay());
      } else if (origin && origin !== location.origin) {
        wrong = await this.askFromFrame();
      } else {
        let got = {};
        if (scenario.leave) {
          await this.leave();
        } else {
          got = await this.askAll();
        }
        if ("ledger" in scenario.expect) {
          got.ledger = await this.ledger();
        }
        wrong = differences(scenario.expect, got);
      }
    } catch (error) {
      this.status("no answer");
      wrong = [`${error} (does the demo still run?)`];
    }
    const verdict = this.part(".verdict");
    verdict.textContent = wrong.length
      ? `✗ ${wrong.join("; ")}`
      : "✓ as it should be";
    verdict.className = `verdict ${wrong.length ? "bad" : "good"}`;
    this.good = wrong.length === 0;
    this.tried();
    return this.good;
  }

  /* Have the page's server ask what no page can, or read what none may. */
  async relay() {
    const { scenario } = this;
    const answer = await fetch(`attempts/${scenario.number}`, {
      method: "POST",
    });
    const got = await answer.json();
    this.status(`${got.status} ${got.reason}`, got.status);
    this.event("asked by the page's server, as no page could");
    for (const name of ["Content-Type", ...Object.keys(scenario.expect)]) {
      if (/^[A-Z]/.test(name) && name in got) {
        this.header(name, got[name]); // the other facts are no headers
      }
    }
    this.show("pre.body", got.body);
    return got;
  }

  /* Ask as often as it says; the answer that counts is shown. */
  async askAll() {
    const { times, at_once: atOnce } = this.scenario;
    if (times === 1) {
      return this.ask();
    }
    const answers = [];
    const ask = async () => {
      const got = await this.ask();
      this.event(`${got.status} ${got.reason}`);
      answers.push(got);
    };
    if (atOnce) {
      await Promise.all(Array.from({ length: times }, ask));
      answers.sort((one, other) => one.status - other.status);
    } else {
      for (let time = 0; time < times; time += 1) {
        await ask();
      }
    }
    const last = answers.at(-1);
    this.showHead(last);
    this.showBody(last);
    return {
      ...last,
      statuses: answers.map(({ status }) => status).join(", "),
    };
  }

  async ask() {
    const { scenario } = this;
    const answer = await fetch(this.url, {
      method: scenario.method,
      headers: scenario.headers,
      body: scenario.data || undefined,
      credentials: "include",
    });
    const headers = Object.fromEntries(answer.headers);
    const got = {
      ...headers,
      headers,
      status: String(answer.status),
      reason: answer.statusText,
    };
    this.showHead(got);
    if (answer.redirected) {
      this.event(`redirected to ${answer.url}`);
    }
    if (headers["content-type"]?.startsWith("text/event-stream")) {
      got.body = await this.stream(answer);
    } else {
      got.body = await answer.text();
      this.showBody(got);
    }
    const over = performance.now() - this.start > this.limit * 1000;
    got["over the limit"] = over ? "yes" : "no";
    return got;
  }

  showHead({ status, reason, headers }) {
    this.status(`${status} ${reason}`, status);
    this.part(".headers").replaceChildren();
    for (const [name, value] of Object.entries(headers)) {
      if (
        name !== "content-length" ||
        "Content-Length" in this.scenario.expect
      ) {
        this.header(name, value);
      }
    }
    this.countDown(Number(headers["retry-after"]));
  }

  /* Say for how long it is of no use to try again. */
  countDown(seconds) {
    clearInterval(this.counting);
    const end = performance.now() + seconds * 1000;
    const show = () => {
      const left = Math.ceil((end - performance.now()) / 1000);
      this.part(".countdown").textContent =
        left > 0 ? `Come back in ${left} s` : "Come back now";
      if (left <= 0) {
        clearInterval(this.counting);
      }
    };
    this.part(".countdown").hidden = !seconds;
    if (seconds) {
      this.counting = setInterval(show, 250);
      show();
    }
  }

  showBody({ headers, body }) {
    const isPage = headers["content-type"]?.startsWith("text/html");
    this.show(isPage ? "iframe.body" : "pre.body", body);
  }

  show(selector, text) {
    const view = this.part(selector);
    view[view.tagName === "IFRAME" ? "srcdoc" : "textContent"] = pretty(text);
    view.hidden = false;
  }

  async stream(answer) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return text;
      }
      text += value;
      this.event(value.trim());
    }
  }

  /* The same request by another page: a sandboxed frame has the origin "null",
     and what it could read it hands to us. */
  async askFromFrame() {
    const frame = document.createElement("iframe");
    frame.sandbox = "allow-scripts";
    frame.hidden = true;
    // It inherits the policy of this page, and its nonce.
    frame.srcdoc = `<script nonce="${NONCE}">
      fetch(${JSON.stringify(this.url)})
        .then((answer) => answer.text())
        .then((text) => ({ text }), (error) => ({ error: String(error) }))
        .then((got) => parent.postMessage(got, "*"));
    </script>`;
    const got = await new Promise((resolve) => {
      addEventListener("message", function hear(event) {
        if (event.source === frame.contentWindow) {
          removeEventListener("message", hear);
          resolve(event.data);
        }
      });
      document.body.append(frame);
    });
    frame.remove();
    if ("text" in got) {
      this.status("read by the frame");
      this.event(got.text);
      return ["a page of another origin could read the answer"];
    }
    this.status("kept back by the browser");
    this.event(`the frame sees: ${got.error}`);
    return [];
  }

  /* Begin a transfer, and close the connection after its first stage. */
  async leave() {
    const leaving = new AbortController();
    fetch(this.url, {
      method: this.scenario.method,
      signal: leaving.signal,
    }).catch(() => "nobody is there to read it");
    // One that is over is of an earlier try.
    this.showLedger(await this.poll(({ stages }) => stages.length === 1));
    leaving.abort();
    this.event("the page leaves");
    this.status("the page left");
  }

  async ledger() {
    const { stages } = await this.poll((ledger) => {
      this.showLedger(ledger);
      return ledger.over;
    });
    return stages.join(", ");
  }

  showLedger({ stages }) {
    for (const stage of stages.slice(this.seen)) {
      this.event(`written: ${stage}`);
    }
    this.seen = stages.length;
  }

  /* Look at the ledger until it is so. */
  async poll(isSo) {
    for (;;) {
      const ledger = await (await fetch(this.url)).json();
      if (isSo(ledger)) {
        return ledger;
      }
      if (performance.now() - this.start > PATIENCE) {
        throw new Error("The ledger does not change");
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  clear() {
    this.seen = 0;
    this.countDown(0);
    this.part(".result").classList.add("begun");
    this.part(".status").textContent = "…";
    this.part(".status").className = "status";
    for (const name of [".verdict", ".time", ".headers", ".events"]) {
      this.part(name).replaceChildren();
    }
    for (const view of this.element.querySelectorAll(".body")) {
      view.hidden = true;
    }
  }

  time() {
    const seconds = (performance.now() - this.start) / 1000;
    return `${seconds.toFixed(2)} s`;
  }

  status(text, code = 0) {
    const status = this.part(".status");
    status.textContent = text;
    status.className = `status kind-${Math.floor(code / 100)}`;
    this.part(".time").textContent = `after ${this.time()}`;
  }

  header(name, value) {
    const item = document.createElement("li");
    const label = document.createElement("b");
    label.textContent = `${name}: `;
    item.append(label, value);
    this.part(".headers").append(item);
  }

  event(text) {
    const item = document.createElement("li");
    const time = document.createElement("time");
    time.textContent = this.time();
    item.append(time, text);
    this.part(".events").append(item);
  }
}

/* Lines of the source, as they are there. */
function excerpt({ file, first, last, pieces }) {
  const figure = fromTemplate("excerpt");
  const lines = first === last ? `line ${first}` : `lines ${first} to ${last}`;
  figure.querySelector("figcaption").textContent =
    `examples/demo/${file}, ${lines}`;
  for (const { text, named, folded } of pieces) {
    const pre = document.createElement("pre");
    for (const line of text.split("\n")) {
      const element = document.createElement(named ? "mark" : "span");
      element.textContent = `${line}\n`;
      element.style.setProperty("--hang", line.search(/\S|$/) + 4);
      pre.append(element);
    }
    if (folded) {
      const fold = fromTemplate("fold");
      fold.querySelector("summary").textContent =
        `${pre.children.length} more lines`;
      fold.append(pre);
      figure.append(fold);
    } else {
      figure.append(pre);
    }
  }
  return figure;
}

/* What is not as expected. Some facts no page can see: a header that is not
   exposed, what was redirected, and the preflight. */
function differences(expect, got) {
  const wrong = [];
  for (const [name, expected] of Object.entries(expect)) {
    const key = name in got ? name : name.toLowerCase();
    if (key in got && !fits(expected, got[key])) {
      wrong.push(`${name} should be ${expected}`);
    }
  }
  return wrong;
}

function fits(expected, text) {
  const parts = expected.split("*");
  const pattern = parts
    .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))
    .join("[^]*");
  return new RegExp(`^${pattern}$`).test(text);
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
