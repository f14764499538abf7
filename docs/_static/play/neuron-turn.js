/* The plane of the integrator of a resonant neuron: i across and q up, the orbit, and the latest steps. It must know
   nothing about the runtime. */

import { html } from "./controls.js";
import { Plot, curve, legend, set, written } from "./neuron-plot.js";

const TRAIL = 24;

export class Turn {
  constructor() {
    this.plot = new Plot({ height: null, left: 46, bottom: 34 });
    this.curves = Object.fromEntries(["orbit", "visited", "trail", "trailed", "point"]
      .map((name) => [name, curve(name)]));
    this.plot.marks.append(...Object.values(this.curves));
    this.note = html("figcaption");
    this.element = html("figure", {}, legend(["visited", "steps"], ["trail", `the last ${TRAIL}`]), this.plot.element,
      this.note);
  }

  fit(width) {
    this.plot.fit(width);
  }

  draw({ parameters }, { i, q }) {
    const { plot, curves } = this, edge = 1.1 * Math.max(0.1, farthest(i), farthest(q));
    this.points = [[0, 0], ...Array.from(i, (at, t) => [at, q[t]])];
    this.omega = parameters.omega;
    plot.frame({ xs: [-edge, edge], ys: [-edge, edge], xLabel: "integrator i", yLabel: "second part q" });
    set(curves.orbit, { d: plot.path(this.points) });
    set(curves.visited, { d: plot.dots(this.points) });
  }

  /** Moves to a step. */
  at(step) {
    const { plot, curves } = this, behind = this.points.slice(Math.max(0, step + 1 - TRAIL), step + 2);
    set(curves.trail, { d: plot.path(behind) });
    set(curves.trailed, { d: plot.dots(behind) });
    set(curves.point, { d: plot.dots(behind.slice(-1)) });
    const [i, q] = behind.at(-1), period = 2 * Math.PI / this.omega;
    this.note.textContent = `At step ${step} i is ${written(i, 2)} and q is ${written(q, 2)}. In each step the point `
      + `turns by ${this.omega} rad, once round in ${period.toFixed(1)} steps, and comes closer to 0; the input moves `
      + "it to the right. The drive sees i alone.";
    plot.label = `The plane of i and q at step ${step}: i is ${i.toFixed(3)}, q is ${q.toFixed(3)}.`;
  }
}

const farthest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
