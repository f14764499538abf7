/* How often the neuron fires under a steady current, with a mark at the present current. It must know nothing about the
   runtime. */

import { html } from "./controls.js";
import { Plot, curve, legend, set, written } from "./neuron-plot.js";
import { INPUTS } from "./neuron-state.js";

const SAMPLES = 41;

export class Rates {
  /** `rates(parameters, currents)` counts spikes per 100 steps. */
  constructor(rates) {
    Object.assign(this, { rates, plot: new Plot({ height: 210, left: 46, bottom: 34 }), curves: {} });
    for (const name of ["rate", "rated", "mark", "present"]) this.curves[name] = curve(name);
    const { present, ...within } = this.curves;
    this.plot.marks.append(...Object.values(within));
    this.plot.element.append(present);
    this.note = html("figcaption");
    this.element = html("figure", {}, legend(["rate", "spikes"], ["present", "present current"]), this.plot.element,
      this.note);
  }

  fit(width) {
    this.plot.fit(width);
  }

  /** Counts again under all currents. */
  count({ parameters, drive }) {
    const currents = Array.from({ length: SAMPLES }, (_, k) => k / (SAMPLES - 1) * reach(parameters, drive));
    const counted = this.rates(parameters, currents);
    this.points = currents.map((c, k) => [c, counted[k]]);
  }

  /** Counts again under the present current, which takes little time. */
  mark({ parameters, drive }) {
    this.present = [drive, this.rates(parameters, [drive])[0]];
  }

  draw() {
    const { plot, curves, points, present } = this, [drive, rate] = present;
    const top = Math.max(5, Math.ceil(1.1 * Math.max(rate, ...points.map(([, y]) => y))));
    plot.frame({ xs: [0, points.at(-1)[0]], ys: [-0.04 * top, top], xLabel: "steady current c",
      yLabel: "spikes per 100 steps" });
    set(curves.rate, { d: plot.path(points) });
    set(curves.rated, { d: plot.dots(points) });
    set(curves.mark, { d: plot.path([[drive, 0], [drive, top]]) });
    set(curves.present, { d: plot.dots([present]) });
    const fires = points.find(([, y]) => y > 0);
    this.note.textContent = `${written(rate, 2)} spikes per 100 steps at the present current of ${written(drive, 2)}. `
      + "Steady currents without pulses or noise, counted over 400 steps after the first 400 from rest.";
    plot.label = `Spikes per 100 steps against the steady current: ${written(rate, 2)} at the present one of ${drive}. `
      + (fires ? `The neuron fires from about ${fires[0].toFixed(2)} on.` : "The neuron does not fire in this range.");
  }
}

/** The largest current of the plot: there the drive is nearly rho, and the present current is in range. */
function reach({ alpha, omega, rho }, drive) {
  const opposing = Math.hypot(1 - alpha * Math.cos(omega), alpha * Math.sin(omega)); // of a current, per unit of i
  return Math.max(drive, 0.1, Math.min(INPUTS.drive.max, 2.5 * rho * opposing));
}
