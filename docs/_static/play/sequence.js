/* The page "Remember a symbol": one trial of delayed recall, and three networks that go through it step by step. The
   runtime computes everything; the page must know nothing about how a neuron or the encoder works. */
import { announcer, button, calm, html, keepInLink, linkState, mount, settled, slider } from "./controls.js";
import { ranked } from "./network-run.js";
import { attempt, counted, networksOf } from "./sequence-networks.js";
import { NAMES, SYMBOLS, phaseOf, stepsOf, trials } from "./sequence-task.js";
import { inputView, probabilityView, rasterView } from "./sequence-views.js";
import { load } from "./srcell.js";
import { stepping } from "./stepping.js";

const SHORTEST = 10, LONGEST = 400; // delays
const SEEDS = 1_000_000; // the page uses the seeds below; fresh trials use those from here on
const TRIALS = 100;
const FIRST = { symbol: 3, delay: 100, seed: 0 };

mount(async () => {
  const runtime = await load(new URL("./srcell.wasm", import.meta.url));
  return new Page(runtime, await networksOf(runtime)).elements;
});

/** Whether the link holds a state; other links lead to a place on the page. */
function inLink() {
  return Object.keys(FIRST).some((name) => name in linkState());
}

/** The state in the link; what is missing or not allowed keeps its first value. */
function fromLink() {
  const link = linkState();
  const whole = (name, least, most) => {
    const value = /^\d{1,9}$/.test(link[name]) ? Number(link[name]) : NaN;
    return value >= least && value <= most ? value : FIRST[name];
  };
  return { symbol: whole("symbol", 0, SYMBOLS - 1), delay: whole("delay", SHORTEST, LONGEST),
    seed: whole("seed", 0, SEEDS - 1) };
}

class Page {
  constructor(runtime, networks) {
    Object.assign(this, { runtime, networks, state: fromLink(), step: 0, runs: [], running: null, tries: 0 });
    this.input = inputView();
    this.columns = networks.map((opened) => new Column(opened));
    this.status = announcer();
    this.counts = announcer();
    this.counts.textContent = `How often is each network right in ${TRIALS} fresh trials with this delay?`;
    this.keep = settled(() => keepInLink(this.state), 300);
    this.tell = settled(() => { this.status.textContent = this.words(); }, 250);
    this.buildControls();
    this.change(this.state, { keep: false });
    addEventListener("hashchange", () => inLink() && this.change(fromLink(), { keep: false }));
  }

  get elements() {
    return [
      row("Symbol", html("span", { class: "sequence-wide" }, "Symbol"), ...this.symbols),
      html("div", { class: "play-controls sequence-sliders" },
        ...[this.delay, this.seconds, this.at].map((each) => each.element)),
      row("Run", this.runButton, ...this.buttons),
      row("Fresh trials", button(`Try ${TRIALS} times`, () => this.tryAgain(), {
        title: "All symbols in turn, each time with different noise" }), this.counts),
      this.status, this.input.element,
      html("div", { class: "sequence-columns" }, ...this.columns.map((column) => column.element)),
    ];
  }

  buildControls() {
    const { delay } = this.state;
    this.symbols = NAMES.map((name, symbol) => {
      const made = button(name, () => this.change({ ...this.state, symbol }), { pressed: false });
      made.setAttribute("aria-label", `Symbol ${name}`);
      return made;
    });
    this.delay = slider({ label: "Delay, in steps", min: SHORTEST, max: LONGEST, step: 1, value: delay, digits: 0,
      change: (delay) => this.change({ ...this.state, delay }) });
    this.seconds = slider({ label: "Seconds of a run", min: 1, max: 20, step: 1, value: 3, digits: 0,
      change: () => {} });
    this.at = slider({ label: "Shown step", min: 0, max: stepsOf(LONGEST), step: 1, value: 0, digits: 0,
      change: (step) => (this.pause(), this.show(step)) });
    this.runButton = button("Run", () => this.running ? (this.pause(), this.show(this.step)) : this.play());
    this.buttons = [
      button("Step", () => (this.pause(), this.show(this.step < this.steps ? this.step + 1 : 1))),
      button("At once", () => (this.pause(), this.show(this.steps))),
      button("Reset", () => (this.pause(), this.show(0))),
      button("New noise", () => this.change({ ...this.state, seed: (this.state.seed + 1) % SEEDS })),
    ];
  }

  /** Takes a symbol, a delay and a seed, runs all networks on the trial, and shows their last step. */
  change(state, { keep = true } = {}) {
    this.pause();
    this.state = state;
    this.steps = stepsOf(state.delay);
    const events = trials(this.runtime, [state.symbol], state.delay, state.seed);
    this.runs = this.networks.map((opened) => attempt(opened, events, state));
    this.symbols.forEach((one, symbol) => one.setAttribute("aria-pressed", String(symbol === state.symbol)));
    this.delay.value = state.delay;
    this.at.max = this.steps;
    this.show(this.steps);
    if (keep) this.keep();
    const networks = this.networks.map(({ network }) => network), result = this.runs.map(resultOf);
    window.play = { runtime: this.runtime, networks, result, ...state };
  }

  /** Shows the first `step` steps. */
  show(step) {
    this.step = this.at.value = step;
    this.input.draw(this.runs[0], step);
    this.columns.forEach((column, k) => column.show(this.runs[k], step));
    if (!this.running) this.tell();
  }

  words() {
    const { symbol, delay } = this.state;
    if (this.running) return "Running.";
    if (!this.step) return "Before the first step.";
    if (this.step < this.steps) return `Step ${this.step} of ${this.steps}: ${phaseOf(this.step, delay)}.`;
    const answers = this.runs.map((run, k) => `${this.networks[k].said} ${NAMES[run.answer]}, ${judged(run)}`);
    return `Symbol ${NAMES[symbol]}, then ${delay} steps of noise. Answers: ${answers.join("; ")}.`;
  }

  /** Plays the steps, from the first if they have ended. */
  play() {
    if (calm()) return this.show(this.steps);
    this.runButton.textContent = "Pause";
    this.running = stepping({ from: this.step < this.steps ? this.step : 0, to: this.steps,
      rate: () => this.steps / this.seconds.value, show: (step) => this.show(step), end: () => this.pause() });
    this.tell();
  }

  pause() {
    this.running?.();
    this.running = null;
    this.runButton.textContent = "Run";
  }

  /** Says how many fresh trials with this delay each network gets right. */
  async tryAgain() {
    const { delay } = this.state, seed = SEEDS + this.tries++, found = [];
    this.counts.textContent = "Counting.";
    for (const opened of this.networks) {
      await new Promise((resolve) => setTimeout(resolve)); // keeps the page responsive
      found.push(counted(opened, this.runtime, TRIALS, delay, seed));
    }
    const said = found.map((one) => `${one.said} ${one.right} (${one.milliseconds.toFixed(0)}\u00a0ms)`);
    this.counts.textContent = `Right in ${TRIALS} fresh trials with a delay of ${delay} steps: ${said.join(", ")}.`;
  }
}

function row(label, ...children) {
  return html("div", { class: "play-row sequence-row", role: "group", "aria-label": label }, ...children);
}

function resultOf({ name, logits, answer, spikesBefore }) {
  return { name, logits, answer, spikes: spikesBefore.at(-1) };
}

function judged({ right }) {
  return right ? "right" : "wrong";
}

/** What one network does. */
class Column {
  constructor({ name, network }) {
    this.answer = html("strong", { class: "sequence-symbol" });
    this.words = html("span", {});
    this.views = [rasterView(network.outputs), probabilityView()];
    this.element = html("section", {}, html("h2", {}, name),
      html("p", { class: "sequence-answer" }, this.answer, " ", this.words), ...this.views.map((each) => each.element));
  }

  show(run, step) {
    this.answer.textContent = step ? NAMES[ranked(run.probabilities[step])[0]] : "?";
    this.answer.dataset.judged = step < run.steps ? "" : judged(run);
    this.words.textContent = this.saying(run, step);
    for (const each of this.views) each.draw(run, step);
  }

  saying(run, step) {
    if (!step) return "before the first step";
    if (step < run.steps) return `if asked now: p = ${Math.max(...run.probabilities[step]).toFixed(2)}`;
    return run.right ? "\u2713 right" : `\u2717 wrong, it was ${NAMES[run.symbol]}`;
  }
}
