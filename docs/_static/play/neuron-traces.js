/* The neuron in time: the current with its pulses, the drive, and the states h and hs. Users set pulses in the first
   plot and move the time cursor in the others. It must know nothing about the runtime. */

import { html } from "./controls.js";
import { Plot, curve, legend, set, written } from "./neuron-plot.js";
import { STEPS } from "./neuron-state.js";

const LAST = STEPS - 1;
const KEYS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -STEPS,
  End: STEPS };

export class Traces {
  /** `toggle(step)` sets or removes a pulse, `move(step)` moves the time cursor. */
  constructor({ toggle, move }) {
    Object.assign(this, { toggle, move, step: 0 });
    this.input = new Plot({ height: 84, bottom: 8 });
    this.drive = new Plot({ height: 76, bottom: 8 });
    this.states = new Plot({ height: 190, bottom: 34 });
    this.plots = [this.input, this.drive, this.states];
    this.cursors = this.plots.map(() => curve("cursor"));
    this.hover = curve("hover");
    this.curves = Object.fromEntries(["current", "pulses", "heads", "drive", "output", "slow", "fast", "marks"]
      .map((name) => [name, curve(name)]));
    this.input.marks.append(this.hover, this.cursors[0], this.curves.current, this.curves.pulses, this.curves.heads);
    this.drive.marks.append(this.cursors[1], this.curves.drive);
    const { output, slow, fast, marks } = this.curves;
    this.states.marks.append(this.cursors[2], output, slow, fast, marks);
    this.track = this.inputTrack();
    this.element = html("figure", { class: "neuron-traces" },
      legend(["pulses", "pulses"], ["current", "steady current and noise, c"]), this.track,
      html("div", { class: "neuron-legend neuron-hint" },
        "Click or tap: set or remove a pulse. Keys: arrows, Space."),
      legend(["drive", "drive x = rho tanh(i / rho)"]), this.scrubbed(this.drive),
      legend(["fast", "fast state h"], ["slow", "slow state hs"], ["output", "s = max(h, 0)"], ["marks", "spike"]),
      this.scrubbed(this.states));
  }

  inputTrack() {
    const away = () => this.hover.setAttribute("d", "");
    return html("div", { class: "neuron-track", role: "slider", tabindex: 0, "aria-valuemin": 0, "aria-valuemax": LAST,
      "aria-label": "Pulses: arrow keys move along the steps, Space sets or removes a pulse", onpointerleave: away,
      onclick: (event) => this.click(event), onkeydown: (event) => this.key(event),
      onpointermove: (event) => this.point(event) }, this.input.element);
  }

  scrubbed(plot) {
    const follow = (event) => event.buttons & 1 && this.move(clamped(plot.under(event)));
    const hold = (event) => (event.currentTarget.setPointerCapture(event.pointerId), follow(event));
    return html("div", { class: "neuron-scrubbed", onpointerdown: hold, onpointermove: follow }, plot.element);
  }

  /** A click on a pulse removes it; any other click sets one. */
  click(event) {
    const step = clamped(this.input.under(event));
    const reach = (event.pointerType === "touch" ? 8 : 3) * STEPS / this.input.inner.width;
    const near = this.pulses.map(([at]) => at).filter((at) => Math.abs(at - step) <= reach);
    this.toggle(near.sort((a, b) => Math.abs(a - step) - Math.abs(b - step))[0] ?? step);
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === " " || event.key === "Enter") this.toggle(this.step);
    else if (event.key in KEYS) this.move(clamped(this.step + KEYS[event.key]));
    else return;
    event.preventDefault();
    event.stopPropagation(); // Sphinx turns pages with the arrow keys
  }

  point(event) {
    if (event.pointerType !== "mouse") return;
    this.hover.setAttribute("d", upright(this.input, clamped(this.input.under(event))));
  }

  fit(width) {
    for (const plot of this.plots) plot.fit(width);
  }

  draw({ parameters, pulses, ...inputs }, { current, h, hs, drive, spikes, summary }) {
    this.pulses = pulses;
    const { input, curves } = this, base = current.map((c, t) => c - (pulses.find(([at]) => at === t)?.[1] ?? 0));
    input.frame({ xs: [-1, STEPS], ys: [1.15 * Math.min(0, least(current)), Math.max(1, 1.15 * most(current))] });
    this.drive.frame({ xs: [-1, STEPS], ys: [Math.min(0, Math.floor(least(drive))), parameters.rho] });
    this.states.frame({ xs: [-1, STEPS], ys: [-1.08, 1.25], yTicks: [-1, 0, 1], xLabel: "step t" });
    const tops = pulses.map(([t]) => [t, current[t]]);
    set(curves.current, { d: input.path(series(base)) });
    set(curves.pulses, { d: tops.map(([t, c]) => input.path([[t, 0], [t, c]])).join("") });
    set(curves.heads, { d: input.dots(tops) });
    set(curves.drive, { d: this.drive.path(series(drive)) });
    set(curves.fast, { d: this.states.path(series(h)) });
    set(curves.slow, { d: this.states.path(series(hs)) });
    set(curves.output, { d: this.states.path([[0, 0], ...series(h.map((x) => Math.max(x, 0))), [LAST, 0]]) });
    set(curves.marks, { d: spikes.map((t) => mark(this.states, t)).join("") });
    this.say(inputs, pulses, summary);
  }

  say({ drive, noise }, pulses, summary) {
    const said = pulses.map(([t, height]) => `of ${height} at step ${t}`).join(", ");
    this.input.label = `Steady current ${drive}, noise up to ${noise}, ${said ? `pulses ${said}` : "no pulses"}.`;
    this.drive.label = "The drive over time: the integrated input, bounded.";
    this.states.label = `The states h and hs over time. ${summary}`;
  }

  /** Moves the time cursor. */
  at(step) {
    this.step = step;
    this.plots.forEach((plot, k) => this.cursors[k].setAttribute("d", upright(plot, step)));
    const pulse = this.pulses.find(([at]) => at === step);
    set(this.track, { "aria-valuenow": step,
      "aria-valuetext": `step ${step}, ${pulse ? `pulse of ${written(pulse[1])}` : "no pulse"}` });
  }
}

const clamped = (step) => Math.min(LAST, Math.max(0, Math.round(step)));
const series = (values) => Array.from(values, (value, t) => [t, value]);
const least = (values) => values.reduce((a, b) => Math.min(a, b));
const most = (values) => values.reduce((a, b) => Math.max(a, b));
const upright = (plot, step) => plot.path([[step, plot.ys[0]], [step, plot.ys[1]]]);

/** A small triangle above a spike. */
function mark(plot, step) {
  return `M${plot.x(step) - 3.5} ${plot.y(1.22)}h7l-3.5 6z`;
}
