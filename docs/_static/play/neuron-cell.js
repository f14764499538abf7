/* One neuron, and what can be asked of it, all computed by the runtime: its resting state, its response to a current,
   how often it fires, and where a step leads from each point of the plane of h and hs. It must know nothing about the
   page. */

import { Events, layerFile, neuronFile } from "./srcell.js";

const SILENT = 1000;
const SETTLING = 400, COUNTED = 400;
const POINTS = 13, EDGE = 0.95;

export class Cell {
  constructor(runtime) {
    Object.assign(this, { runtime, rests: new Map(), field: null });
  }

  /** i, h and hs after 1,000 silent steps from zero: the resting state, if the neuron has one. */
  rest(parameters) {
    const key = JSON.stringify(parameters);
    if (this.rests.has(key)) return this.rests.get(key);
    const rest = this.streaming(neuronFile(parameters), (stream) => {
      for (let t = 0; t < SILENT; ++t) stream.step([]);
      const { i, h, hs } = stream.values();
      return [i[0], h[0], hs[0]];
    });
    if (this.rests.size > 100) this.rests.clear();
    this.rests.set(key, rest);
    return rest;
  }

  /** i, h, hs and q of each step under a current, from rest; q is 0 without resonance. */
  trace(parameters, current) {
    const initial = this.rest(parameters), [i, h, hs, q] = Array.from("ihsq", () => new Float32Array(current.length));
    this.streaming(neuronFile(parameters, initial), (stream) => current.forEach((c, t) => {
      stream.step([0], [c]);
      const now = stream.values();
      [i[t], h[t], hs[t], q[t]] = [now.i[0], now.h[0], now.hs[0], now.q?.[0] ?? 0];
    }));
    return { current, initial, i, h, hs, q };
  }

  /** Spikes per 100 steps under each steady current, from rest, without the first 400 steps. */
  rates(parameters, currents) {
    const steps = SETTLING + COUNTED, batch = currents.length, cells = steps * batch;
    const values = Float32Array.from({ length: cells }, (_, row) => currents[Math.floor(row / steps)]);
    const offsets = Int32Array.from({ length: cells + 1 }, (_, row) => row);
    const network = this.runtime.network(neuronFile(parameters, this.rest(parameters)));
    const { spikes } = network.run(new Events(steps, batch, offsets, new Int32Array(cells), values));
    network.free();
    return currents.map((_, b) => 100 * rate(spikesOf((t) => spikes[t * batch + b], steps, SETTLING), steps));
  }

  /** Where a step leads from each point of a grid when the integrator is i: { from, to }, pairs of h and hs. */
  steps(parameters, i) {
    const key = JSON.stringify(parameters);
    if (this.field?.key !== key) {
      this.field?.stream.free();
      this.field?.network.free();
      const network = this.runtime.network(gridFile(parameters));
      this.field = { key, network, stream: network.stream() };
    }
    const { stream } = this.field;
    stream.reset();
    stream.step([0], [i]);
    const { h, hs } = stream.values();
    return GRID.map((from, k) => ({ from, to: [h[k], hs[k]] }));
  }

  /** Returns what `use` returns for a new stream. */
  streaming(file, use) {
    const network = this.runtime.network(file), stream = network.stream();
    const made = use(stream);
    stream.free();
    network.free();
    return made;
  }
}

/** The steps of spikes, upward crossings of 0.5, from `first` on; `before` is the output before step 0. */
export function spikesOf(output, steps, first = 0, before = 0) {
  const found = [];
  for (let t = first; t < steps; ++t)
    if (output(t) > 0.5 && !((t ? output(t - 1) : before) > 0.5)) found.push(t);
  return found;
}

/** Spikes per step: for a neuron that keeps firing, from the time between its first and last spike, otherwise from
    their number. */
function rate(spikes, steps) {
  const every = (spikes.at(-1) - spikes[0]) / (spikes.length - 1);
  return steps - spikes.at(-1) < 2 * every ? 1 / every : spikes.length / COUNTED;
}

const ALONG = Array.from({ length: POINTS }, (_, k) => EDGE * (2 * k / (POINTS - 1) - 1));
const GRID = ALONG.flatMap((hs) => ALONG.map((h) => [h, hs]));

/** A network of one neuron for each point of the grid; all start with an integrator of 0. */
function gridFile(parameters) {
  const initial = [...GRID.map(() => 0), ...GRID.map(([h]) => h), ...GRID.map(([, hs]) => hs)];
  return layerFile(parameters, initial, GRID.length);
}
