/* The phase portrait: the plane of h and hs with the lines on which one of them stays constant, the direction of a step
   from each point, and the neuron's orbit. It must know nothing about the runtime. */

import { html } from "./controls.js";
import { Plot, curve, legend, pixel, set, written } from "./neuron-plot.js";

const EDGE = 1.08, LONGEST = 0.1, TRAIL = 24;

export class Plane {
  /** `steps(i)` returns where steps lead when the integrator is i. */
  constructor(steps) {
    Object.assign(this, { steps, plot: new Plot({ height: null, left: 46, bottom: 34 }) });
    this.curves = Object.fromEntries(["field", "slow", "fast", "orbit", "visited", "trail", "trailed", "point"]
      .map((name) => [name, curve(name)]));
    this.plot.marks.append(...Object.values(this.curves));
    this.note = html("figcaption");
    this.element = html("figure", {}, legend(["fast", "h constant"], ["slow", "hs constant"], ["visited", "steps"],
      ["trail", `the last ${TRAIL}`]),
      this.plot.element, this.note);
  }

  fit(width) {
    this.plot.fit(width);
  }

  draw({ parameters }, trace) {
    const { plot, curves } = this;
    Object.assign(this, { parameters, trace, fieldAt: null });
    this.points = [[trace.initial[1], trace.initial[2]], ...Array.from(trace.h, (h, t) => [h, trace.hs[t]])];
    const marks = [-1, -0.5, 0, 0.5, 1];
    plot.frame({ xs: [-EDGE, EDGE], ys: [-EDGE, EDGE], xTicks: marks, yTicks: marks, xLabel: "fast state h",
      yLabel: "slow state hs" });
    set(curves.slow, { d: plot.path([[-1, -1], [1, 1]]) });
    set(curves.fast, { d: plot.path(fastLine(parameters)) });
    set(curves.orbit, { d: plot.path(this.points) });
    set(curves.visited, { d: plot.dots(this.points) });
  }

  /** Moves to a step: draws its point, the steps before it, and the lines for the drive at that time. */
  at(step) {
    const { plot, curves, trace } = this, behind = this.points.slice(Math.max(0, step + 1 - TRAIL), step + 2);
    const lift = plot.y(-trace.drive[step] / this.parameters.rs) - plot.y(0);
    set(curves.fast, { transform: `translate(0 ${pixel(lift)})` });
    set(curves.trail, { d: plot.path(behind) });
    set(curves.trailed, { d: plot.dots(behind) });
    set(curves.point, { d: plot.dots(behind.slice(-1)) });
    if (this.fieldAt === null || Math.abs(trace.drive[step] - this.fieldAt) > 1e-3) {
      set(curves.field, { d: this.steps(trace.i[step]).map((one) => arrow(plot, one)).join("") });
      this.fieldAt = trace.drive[step];
    }
    const [h, hs] = behind.at(-1);
    this.note.textContent = `At step ${step} the drive is x = ${written(trace.drive[step], 2)}; it raises the line on `
      + "which h stays constant. Grey arrows: the direction of a step.";
    plot.label = `The plane of h and hs at step ${step}: h is ${h.toFixed(3)}, hs is ${hs.toFixed(3)}.`;
  }
}

/** The line on which h stays constant without a drive; a drive x moves it by -x / rs. */
function fastLine({ bias, r, rs }) {
  const along = Array.from({ length: 501 }, (_, k) => 0.12 * (k - 250)); // u = atanh(h), so that h comes close to 1
  return along.map((u) => [Math.tanh(u), (u - r * Math.tanh(u) - bias) / rs]);
}

/** The path data of an arrow in the direction of a step. */
function arrow(plot, { from, to }) {
  const [dh, dhs] = [to[0] - from[0], to[1] - from[1]], length = Math.hypot(dh, dhs);
  if (length < 1e-4) return "";
  const shown = Math.min(1, LONGEST / length), x = plot.x(from[0]), y = plot.y(from[1]);
  const dx = plot.x(from[0] + dh * shown) - x, dy = plot.y(from[1] + dhs * shown) - y, size = Math.hypot(dx, dy);
  const [ux, uy] = [2.5 * dx / size, 2.5 * dy / size];
  return `M${pixel(x)} ${pixel(y)}l${pixel(dx)} ${pixel(dy)}m${pixel(-ux - uy)} ${pixel(ux - uy)}`
    + `l${pixel(ux + uy)} ${pixel(uy - ux)}l${pixel(uy - ux)} ${pixel(-ux - uy)}`;
}
