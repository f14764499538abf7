/* The time cursor: playing, pausing, single steps, and the values at that time. It must know nothing about the
   runtime. */

import { button, html, slider } from "./controls.js";
import { written } from "./neuron-plot.js";
import { STEPS } from "./neuron-state.js";

const SPEEDS = [10, 30, 60], LONGEST = 0.1; // steps a second; the most seconds that a frame may count for

export class Time {
  /** `move(step)` is called when the cursor should move. */
  constructor(move) {
    Object.assign(this, { move, step: 0, speed: SPEEDS[1], playing: false, owed: 0, last: 0 });
    this.play = button("Play", () => this.turn(!this.playing));
    this.next = button("Step", () => this.user((this.step + 1) % STEPS), { title: "One step forward" });
    this.start = button("Start", () => this.user(0), { title: "Back to step 0" });
    this.range = slider({ label: "Time", symbol: "t", min: 0, max: STEPS - 1, step: 1, value: 0, digits: 0,
      change: (step) => this.user(step) });
    const choice = html("select", { id: "neuron-speed", onchange: () => { this.speed = Number(choice.value); } },
      ...SPEEDS.map((speed) =>
        html("option", { value: speed, selected: speed === this.speed }, `${speed} steps per second`)));
    this.values = html("p", { class: "neuron-values" });
    this.element = html("div", { class: "neuron-time" }, this.range.element, this.values,
      html("div", { class: "play-row" }, this.play, this.next, this.start,
        html("label", { for: "neuron-speed", class: "play-hidden" }, "Speed"), choice));
  }

  /** Moves on behalf of the user, which stops playing. */
  user(step) {
    this.turn(false);
    this.move(step);
  }

  turn(playing) {
    if (playing === this.playing) return;
    this.playing = playing;
    this.play.textContent = playing ? "Pause" : "Play";
    this.owed = this.last = 0;
    if (playing) requestAnimationFrame((now) => this.frame(now));
    else this.move(this.step); // this also keeps the cursor in the link
  }

  frame(now) {
    if (!this.playing) return;
    this.owed += this.last ? Math.min(LONGEST, (now - this.last) / 1000) * this.speed : 0;
    this.last = now;
    const whole = Math.floor(this.owed + 0.01); // so that a 60 Hz screen shows each step at 60 steps a second
    this.owed -= whole;
    if (whole) this.move((this.step + whole) % STEPS);
    requestAnimationFrame((later) => this.frame(later));
  }

  /** Shows a step of a trace. */
  at(step, { current, drive, h, hs }) {
    this.step = step;
    this.range.value = step;
    const shown = [["c", current], ["x", drive], ["h", h], ["hs", hs]];
    this.values.textContent = shown.map(([name, values]) => `${name} = ${written(values[step], 3)}`).join(", ");
  }
}
