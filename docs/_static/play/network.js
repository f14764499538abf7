/* The page "Draw a digit": a pad, the networks that classify the drawing, and controls that move them step by step. The
   runtime computes everything; the page must know nothing about how a neuron or the encoder works. */
import { announcer, button, calm, html, mount, slider } from "./controls.js";
import { Pad, pictureOf } from "./drawing.js";
import { sampleDigit } from "./network-digits.js";
import { eventsBefore, leader, opened, ranked, run } from "./network-run.js";
import { eventsView, inputView, logitsView, pictureView, rasterView, votesView } from "./network-views.js";
import { fetched, load } from "./srcell.js";
import { stepping } from "./stepping.js";

const NETWORKS = [
  { name: "Float", file: "mnist-100.srcell", bits: 32 },
  { name: "Integer", file: "integer-44-4.srcell", bits: 4 },
];
const FIRST = 7; // the digit that is shown when the page opens

mount(async () => {
  const [runtime, ...files] = await Promise.all([load(beside("srcell.wasm")),
    ...NETWORKS.map(({ file }) => fetched(beside(file)))]);
  const networks = NETWORKS.map((about, k) => opened(runtime, files[k], about));
  const page = new Page(runtime, networks);
  page.pad.show(sampleDigit(FIRST));
  return page.elements;
});

function beside(file) {
  return new URL(`./${file}`, import.meta.url);
}

class Page {
  constructor(runtime, networks) {
    Object.assign(this, { runtime, networks, seed: 0, step: 0, runs: [], running: null });
    this.steps = Math.max(...networks.map((network) => network.steps));
    this.pad = new Pad(() => this.atOnce());
    this.picture = pictureView();
    this.columns = networks.map((network) => new Column(network));
    this.counts = new Counts(networks);
    this.status = announcer();
    this.buildControls();
  }

  get elements() {
    return [
      html("div", { class: "network-drawing" }, this.pad.element, this.got(), this.status, this.tools()),
      ...this.controls, html("div", { class: "network-columns" }, ...this.columns.map((column) => column.element)),
      this.counts.table, this.counts.note,
    ];
  }

  got() {
    const caption = "The networks' input: 28 by 28 pixels, scaled and centred as in MNIST.";
    return html("figure", {}, this.picture.element, html("figcaption", {}, caption));
  }

  tools() {
    const digits = Array.from({ length: 10 }, (_, digit) => {
      const made = button(String(digit), () => this.pad.show(sampleDigit(digit)));
      made.setAttribute("aria-label", `Draw a ${digit}`);
      return made;
    });
    return html("div", { class: "network-tools" },
      html("div", { class: "play-row" }, button("Clear", () => this.pad.clear()), button("Undo", () => this.pad.undo()),
        html("span", { id: "network-samples" }, "or show a sample:")),
      html("div", { class: "network-digits", role: "group", "aria-labelledby": "network-samples" }, ...digits));
  }

  buildControls() {
    this.runButton = button("Run", () => this.running ? (this.pause(), this.show(this.step)) : this.play());
    this.at = slider({ label: "Shown step", min: 0, max: this.steps, step: 1, value: 0, digits: 0,
      change: (step) => (this.pause(), this.show(step)) });
    this.speed = slider({ label: "Steps per second", min: 5, max: 200, step: 5, value: 90, digits: 0,
      change: () => {} });
    this.controls = [
      html("div", { class: "play-row network-run", role: "group", "aria-label": "Run" }, this.runButton,
        button("Step", () => (this.pause(), this.show(this.step < this.steps ? this.step + 1 : 1))),
        button("At once", () => this.atOnce()), button("Reset", () => (this.pause(), this.show(0))),
        button("New spikes", () => (++this.seed, this.atOnce()), { title: "Other input spikes for the same picture" })),
      html("div", { class: "play-controls network-sliders" }, this.at.element, this.speed.element),
    ];
  }

  /** Runs all networks on the drawing, and shows their last step. */
  atOnce() {
    this.pause();
    const picture = pictureOf(this.pad.drawing), empty = !picture.some((pixel) => pixel);
    this.picture.draw(picture);
    this.runs = empty ? [] : this.networks.map((network) => run(network, picture, this.seed));
    this.show(empty ? 0 : this.steps);
    const { runtime, networks, seed } = this;
    window.play = { runtime, networks, seed, image: picture, result: this.runs.map(resultOf) };
  }

  /** Shows the first `step` steps. */
  show(step) {
    this.step = this.at.value = step;
    this.columns.forEach((column, k) => column.show(this.runs[k], step));
    this.counts.show(this.runs, step);
    if (!this.running) this.status.textContent = this.words();
  }

  words() {
    if (!this.runs.length) return "Draw a digit.";
    if (!this.step) return "Before the first step.";
    return this.runs.map((run) => this.step < this.steps ? standOf(run, this.step) : answerOf(run)).join("\n");
  }

  /** Plays the steps, from the first if they have ended. */
  play() {
    if (!this.runs.length) return;
    if (calm()) return this.show(this.steps);
    this.status.textContent = "Running.";
    this.runButton.textContent = "Pause";
    this.running = stepping({ from: this.step < this.steps ? this.step : 0, to: this.steps,
      rate: () => this.speed.value, show: (step) => this.show(step), end: () => this.pause() });
  }

  pause() {
    this.running?.();
    this.running = null;
    this.runButton.textContent = "Run";
  }
}

function resultOf({ name, logits, events, spikesBefore, milliseconds }) {
  return { name, logits, answer: ranked(logits)[0], spikes: spikesBefore.at(-1), events: events.indices.length,
    milliseconds };
}

function answerOf({ name, logits, steps, milliseconds }) {
  return `${name}: ${lead(logits)}; ${steps} steps in ${milliseconds.toFixed(1)}\u00a0ms.`;
}

function standOf({ name, steps, logitsAfter }, step) {
  const at = Math.min(step, steps);
  return `${name}, step ${at} of ${steps}: ${lead(logitsAfter[at])}.`;
}

function lead(logits) {
  const [first, second] = ranked(logits);
  if (leader(logits) === null) return "no class is ahead";
  return `${first}, its logit ${(logits[first] - logits[second]).toFixed(1)} above that of ${second}`;
}

/** What one network does. */
class Column {
  constructor({ name, bits, network, encoder, steps }) {
    this.steps = steps;
    this.digit = html("strong", { class: "network-digit" });
    this.words = html("p", {});
    this.input = inputView();
    this.views = [votesView(), rasterView(network.outputs, network.classes), eventsView(), logitsView()];
    this.element = html("section", {}, html("h2", {}, `${name} neurons`),
      html("p", {}, `${steps} steps, of which ${encoder.prefix} are silent; weights of ${bits} bits.`),
      html("div", { class: "network-answer" }, this.input.element, html("div", {}, this.digit, this.words,
        html("p", { class: "network-small" }, "In the picture: this step's active pixels, on top of those so far."))),
      ...this.views.map((each) => each.element));
  }

  show(run, step) {
    const at = Math.min(step, this.steps), logits = run?.logitsAfter[at];
    this.digit.textContent = (logits && leader(logits)) ?? "?";
    this.words.textContent = logits ? `After step ${at}: ${lead(logits)}.` : "Nothing is drawn.";
    for (const each of [this.input, ...this.views]) each.draw(run, at);
  }
}

const COUNTS = [
  ["Steps", (run, step) => step],
  ["Input events: active pixels of all steps", eventsBefore],
  ["Output events: active neurons of all steps", (run, step) => run.spikesBefore[step]],
  ["Additions: input events × neurons", (run, step) => eventsBefore(run, step) * run.neurons],
  ["Multiply-adds if no zero were skipped: inputs × neurons × steps", (run, step) => run.inputs * run.neurons * step],
  ["The share of these that is computed", (run, step) => step ? eventsBefore(run, step) / (run.inputs * step) : 0,
    (share) => `${(100 * share).toFixed(1)} %`],
  ["Time to run all steps at once", (run) => run.milliseconds, (time) => `${time.toFixed(1)} ms`],
];

/** The networks' costs so far, side by side. */
class Counts {
  constructor(networks) {
    this.cells = COUNTS.map(() => networks.map(() => html("td")));
    const heads = networks.map(({ name }) => html("th", { scope: "col" }, name));
    const { inputs, outputs } = networks[0].network, once = (inputs * outputs).toLocaleString("en");
    const rows = COUNTS.map(([label], k) => html("tr", {}, html("th", { scope: "row" }, label), ...this.cells[k]));
    this.note = html("p", {}, `A layer without spikes, which reads the picture once, needs ${once} multiply-adds.`);
    this.table = html("table", { class: "network-counts" }, html("caption", {}, "Counts so far"),
      html("thead", {}, html("tr", {}, html("td"), ...heads)),
      html("tbody", {}, ...rows));
  }

  show(runs, step) {
    COUNTS.forEach(([, count, written = (x) => x.toLocaleString("en")], k) => this.cells[k].forEach((cell, n) => {
      cell.textContent = runs[n] ? written(count(runs[n], Math.min(step, runs[n].steps))) : "";
    }));
  }
}
