/* Delayed recall, as in RecallEncoding of srcell.data: a symbol's input fires in the first SHOWN steps, then noise
   inputs fire at random for `delay` steps; in the ANSWERED steps that follow, the cue's input fires in the first SHOWN.
   It must know nothing about a network. */
import { Events } from "./srcell.js";

export const NAMES = [..."ABCDEFGH"];
export const SYMBOLS = 8, NOISE = 16, CUE = SYMBOLS + NOISE; // inputs: symbols, noise, the cue
export const SHOWN = 5, ANSWERED = 20;

const PROBABILITY = 0.1; // that a noise input fires in a step

/** The number of steps of a trial. */
export function stepsOf(delay) {
  return SHOWN + delay + ANSWERED;
}

/** The events of a trial for each of the symbols; the noise depends on `seed` and on the trial's number, counted from
    0. */
export function trials(runtime, symbols, delay, seed) {
  const pixels = new Float32Array(symbols.length * NOISE).fill(PROBABILITY), index = [...symbols.keys()];
  const noise = runtime.encodeRate(pixels, NOISE, { steps: delay, prefix: 0, gain: 1, seed, index });
  const rows = symbols.flatMap((symbol, trial) => rowsOf(symbol, delay, (step) => noise.row(step, trial)));
  return Events.of(rows, symbols.length);
}

function rowsOf(symbol, delay, noiseOf) {
  return Array.from({ length: stepsOf(delay) }, (_, step) => {
    if (step < SHOWN) return [symbol];
    if (step < SHOWN + delay) return Array.from(noiseOf(step - SHOWN), (input) => SYMBOLS + input);
    return step < SHOWN + delay + SHOWN ? [CUE] : [];
  });
}

/** What happens in a step, counted from 1. */
export function phaseOf(step, delay) {
  if (step <= SHOWN) return "the symbol is shown";
  if (step <= SHOWN + delay) return "noise";
  return step <= SHOWN + delay + SHOWN ? "the cue is shown" : "no input";
}
