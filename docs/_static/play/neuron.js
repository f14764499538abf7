/* The page of the neuron: one neuron with adjustable parameters and input, shown in time, in the plane of its two
   states, by how often it fires and, if it resonates, in the plane of its integrator. It puts the pieces together.
   It must know nothing about the neuron's equations: the runtime alone computes them. */

import { announcer, button, html, keepInLink, linkState, mount, settled, slider } from "./controls.js";
import { Cell, spikesOf } from "./neuron-cell.js";
import { Plane } from "./neuron-plane.js";
import { Rates } from "./neuron-rates.js";
import { FIRST, INPUTS, PARAMETERS, PRESETS, STEPS, currentOf, fromLink, inLink, nextSeed, presetOf, state, toLink,
  toggled } from "./neuron-state.js";
import { Time } from "./neuron-time.js";
import { Traces } from "./neuron-traces.js";
import { Turn } from "./neuron-turn.js";
import { load } from "./srcell.js";

class Page {
  constructor(runtime) {
    const link = linkState(), first = inLink(link) ? fromLink(link) : FIRST.state;
    Object.assign(this, { runtime, cell: new Cell(runtime), state: first, fitted: "" });
    this.time = new Time((step) => this.at(step));
    this.traces = new Traces({ toggle: (step) => this.toggle(step), move: (step) => this.time.user(step) });
    this.plane = new Plane((i) => this.cell.steps(this.state.parameters, i));
    this.rates = new Rates((parameters, currents) => this.cell.rates(parameters, currents));
    this.turn = new Turn();
    this.views = [this.traces, this.plane, this.rates];
    this.keep = settled(() => keepInLink(toLink(this.state)), 300);
    this.count = settled(() => (this.rates.count(this.state), this.rates.draw()), 150);
    this.tell = settled(() => { this.status.textContent = this.trace.summary; }, 250);
    this.build();
    this.simulate();
    this.rates.count(this.state);
    this.rates.mark(this.state);
    this.status.textContent = this.trace.summary;
    addEventListener("hashchange", () => inLink(linkState()) && this.change(fromLink(linkState()), { keep: false }));
  }

  build() {
    this.status = announcer();
    this.says = html("p", { class: "neuron-says" });
    this.presets = PRESETS.map((preset) => button(preset.name, () => this.change(preset.state), { pressed: false }));
    this.sliders = [...this.slidersOf(PARAMETERS, (name, value) =>
      ({ ...this.state, parameters: { ...this.state.parameters, [name]: value } })),
    ...this.slidersOf(INPUTS, (name, value) => ({ ...this.state, [name]: value }))];
    this.noise = button("New noise", () => this.change({ ...this.state, seed: nextSeed(this.state.seed) }));
    this.clear = button("Remove all pulses", () => this.change({ ...this.state, pulses: [] }));
    this.reset = button("Default parameters", () => this.change({ ...this.state, parameters: state().parameters }));
    this.copy = button("Copy link", () => this.copied());
    this.copyNote = announcer();
    this.turning = under("In the plane of its integrator", this.turn);
  }

  slidersOf(ranges, changed) {
    return Object.entries(ranges).map(([name, range]) =>
      Object.assign(slider({ ...range, change: (value) => this.change(changed(name, value)) }), { name }));
  }

  get elements() {
    const named = (name) => this.sliders.find((one) => one.name === name).element;
    const parameters = Object.keys(PARAMETERS).map(named);
    const controls = html("div", {}, html("h3", {}, "Input"),
      html("div", { class: "play-controls" }, named("drive"), named("noise"), named("height")),
      html("div", { class: "play-row" }, this.noise, this.clear),
      html("h3", {}, "Parameters"), html("div", { class: "play-controls" }, ...parameters),
      html("div", { class: "play-row" }, this.reset, this.copy), this.copyNote);
    const presets = html("div", { class: "play-row neuron-presets", role: "group", "aria-label": "Presets" },
      ...this.presets);
    return [presets, this.says,
      html("div", { class: "play-columns neuron-columns" },
        html("div", {}, this.traces.element, this.status, this.time.element),
        html("div", { class: "neuron-side" }, under("In the plane of its states", this.plane), controls),
        html("div", {}, under("How often it fires", this.rates), this.turning))];
  }

  /** Takes a state and shows the neuron in it. */
  change(next, { keep = true } = {}) {
    this.state = next;
    this.simulate();
    this.rates.mark(this.state);
    this.draw();
    this.count();
    this.tell();
    if (keep) this.keep();
  }

  /** Simulates the window again, from rest. */
  simulate() {
    const { parameters } = this.state, { rho } = parameters;
    const trace = this.cell.trace(parameters, currentOf(this.state));
    const spikes = spikesOf((t) => trace.h[t], STEPS, 0, trace.initial[1]);
    this.trace = { ...trace, drive: trace.i.map((i) => rho * Math.tanh(i / rho)), spikes, summary: summary(spikes) };
    window.play = { runtime: this.runtime, state: this.state, trace };
    this.showState();
  }

  showState() {
    for (const one of this.sliders) one.value = this.state.parameters[one.name] ?? this.state[one.name];
    const preset = presetOf(this.state);
    this.presets.forEach((one, k) => one.setAttribute("aria-pressed", String(PRESETS[k] === preset)));
    this.says.textContent = preset?.says ?? "Your own settings. The window starts after 1,000 silent steps from zero, "
      + "so a neuron with a resting state is at rest.";
    this.noise.disabled = this.state.noise === 0;
    this.clear.disabled = this.state.pulses.length === 0;
    this.turning.hidden = !this.resonates;
  }

  get resonates() {
    return this.state.parameters.omega !== 0;
  }

  draw() {
    if (!this.fitted) return;
    if (this.resonates) this.turn.draw(this.state, this.trace);
    this.traces.draw(this.state, this.trace);
    this.plane.draw(this.state, this.trace);
    this.rates.draw();
    this.at(this.state.step, { keep: false });
  }

  /** Moves the time cursor. */
  at(step, { keep = !this.time.playing } = {}) {
    this.state = { ...this.state, step };
    window.play.state = this.state;
    this.traces.at(step);
    this.plane.at(step);
    if (this.resonates) this.turn.at(step);
    this.time.at(step, this.trace);
    if (keep) this.keep();
  }

  toggle(step) {
    this.time.turn(false);
    const { pulses, height } = this.state;
    this.change({ ...this.state, step, pulses: toggled(pulses, step, height) });
  }

  async copied() {
    this.keep.now();
    try {
      await navigator.clipboard.writeText(location.href);
      this.copyNote.textContent = "Copied. The link holds all settings.";
    } catch {
      this.copyNote.textContent = "Copying is not allowed here. The address of this page holds all settings.";
    }
  }

  /** Draws at the sizes that the page gives, now and whenever they change. */
  watch() {
    const fit = () => {
      const widths = this.views.map((view) => Math.floor(view.element.clientWidth));
      if (!widths[0] || String(widths) === this.fitted) return;
      this.fitted = String(widths);
      this.views.forEach((view, k) => view.fit(widths[k]));
      this.turn.fit(widths[1]); // as wide as the other plane; it is hidden without resonance
      this.draw();
    };
    new ResizeObserver(fit).observe(this.traces.element.closest(".play"));
    fit();
  }
}

function under(title, view) {
  return html("div", {}, html("h2", {}, title), view.element);
}

/** The number of spikes and how far apart they are. */
function summary(spikes) {
  if (!spikes.length) return `No spike in ${STEPS} steps.`;
  if (spikes.length === 1) return `1 spike in ${STEPS} steps, at step ${spikes[0]}.`;
  const every = (spikes.at(-1) - spikes[0]) / (spikes.length - 1);
  const apart = `${spikes.length > 2 ? "on average " : ""}${Number(every.toFixed(1))} steps apart`;
  return `${spikes.length} spikes in ${STEPS} steps, ${apart}.`;
}

let page;
await mount(async () => {
  page = new Page(await load(new URL("srcell.wasm", import.meta.url)));
  return page.elements;
});
page.watch();
