/* The pictures of a trial: input, spikes, probabilities. They must know nothing about the runtime, or about who moves
   the step. */
import { LEFT, RIGHT, fill, overSteps, tint, write } from "./canvas.js";
import { eventsBefore, ranked } from "./network-run.js";
import { CUE, NAMES, SHOWN, SYMBOLS } from "./sequence-task.js";

const ROW = 5, HEAD = 18, GAP = 4; // pixels: an input's row, the line of phase names, gaps between kinds of inputs
const CUE_WIDE = 22; // width of the word in pixels
const NEURON = 3; // pixels of a neuron's row

/** The top of an input's row. */
function rowAt(input) {
  return HEAD + ROW * input + GAP * ((input >= SYMBOLS) + (input >= CUE));
}

/** The spikes of all inputs, and the names of the phases. */
export function inputView() {
  const left = 58, height = rowAt(CUE) + ROW + 4;
  return overSteps({
    name: "sequence-canvas", height, left,
    caption: "Input spikes over the steps. Shaded: the symbol and the cue. All three networks receive the same.",
    describe: (run, step) => {
      const shown = run.events.indices.slice(0, eventsBefore(run, step)), counts = (from, to) =>
        shown.filter((input) => input >= from && input < to).length;
      return `Input spikes in ${step} of ${run.steps} steps: ${counts(0, SYMBOLS)} of symbol ${NAMES[run.symbol]}, `
        + `${counts(SYMBOLS, CUE)} of 16 noise inputs, ${counts(CUE, CUE + 1)} of the cue`;
    },
    paint: (pen, size, run, step, x, wide) => {
      write(pen, "symbol", x(0), 8);
      write(pen, "delay", x(SHOWN + run.delay / 2), 8, "center");
      const apart = wide * SHOWN >= CUE_WIDE;
      if (apart) write(pen, "cue", x(SHOWN + run.delay), 8);
      write(pen, apart ? "answer" : "cue, answer", x(run.steps), 8, "right");
      write(pen, `symbol ${NAMES[run.symbol]}`, left - 5, rowAt(run.symbol) + ROW / 2, "right");
      write(pen, "noise", left - 5, (rowAt(SYMBOLS) + rowAt(CUE)) / 2, "right");
      write(pen, "cue", left - 5, rowAt(CUE) + ROW / 2, "right");
      for (const input of [SYMBOLS, CUE]) fill(pen, "grid", left, rowAt(input) - GAP / 2 - 0.5, x(run.steps) - left, 1);
      for (let t = 0; t < step; ++t)
        for (const input of run.events.row(t))
          fill(pen, kindOf(input), x(t), rowAt(input), Math.max(wide - 0.5, 1), ROW - 1);
    },
  });
}

function kindOf(input) {
  if (input < SYMBOLS) return "fast";
  return input < CUE ? "input" : "drive";
}

/** The spikes of a network's neurons. */
export function rasterView(neurons) {
  return overSteps({
    name: "sequence-canvas", height: neurons * NEURON,
    caption: `Active neurons, of ${neurons}; neuron 1 has the shortest time constant.`,
    describe: (run, step) => {
      const late = run.active.slice(SHOWN, Math.min(step, SHOWN + run.delay)).flat();
      return `${run.spikesBefore[step]} outputs of ${neurons} neurons in ${step} of ${run.steps} steps; `
        + `${late.length} of them, by ${new Set(late.map(([n]) => n)).size} neurons, during the delay`;
    },
    paint: (pen, { height }, run, step, x, wide) => {
      write(pen, 1, LEFT - 5, 6, "right");
      write(pen, neurons, LEFT - 5, height - 6, "right");
      run.active.slice(0, step).forEach((spikes, t) => spikes.forEach(([n, spike]) => {
        pen.globalAlpha = 0.4 + 0.6 * Math.min(spike, 1);
        fill(pen, "slow", x(t), n * NEURON, Math.max(wide, 1), NEURON);
      }));
      pen.globalAlpha = 1;
    },
  });
}

/** The probability of each symbol if the network is asked after each step; the shown symbol has a thick line. */
export function probabilityView() {
  return overSteps({
    name: "sequence-canvas", height: 110,
    caption: "Probability of the shown symbol (thick) and of the others (thin), if asked at that step, "
      + "from the spikes of the last 20 steps. Dashed: chance.",
    describe: (run, step) => {
      const now = run.probabilities[step], first = ranked(now)[0];
      return `Probability of symbol ${NAMES[run.symbol]} after step ${step} of ${run.steps}: `
        + `${now[run.symbol].toFixed(2)}; the most probable is ${NAMES[first]} with ${now[first].toFixed(2)}`;
    },
    paint: (pen, { width, height }, run, step, x) => {
      const y = (probability) => height - 8 - (height - 16) * probability;
      fill(pen, "grid", LEFT, y(0), width - LEFT - RIGHT, 1);
      for (const mark of [0, 1]) write(pen, mark, LEFT - 5, y(mark), "right");
      write(pen, "1/8", LEFT - 5, y(1 / SYMBOLS), "right");
      const line = (points, name, thick, dashes = []) => {
        Object.assign(pen, { strokeStyle: tint(name), lineWidth: thick, lineJoin: "round" });
        pen.setLineDash(dashes);
        pen.beginPath();
        for (const [at, probability] of points) pen.lineTo(x(at), y(probability));
        pen.stroke();
      };
      const over = (symbol) => run.probabilities.slice(0, step + 1).map((all, at) => [at, all[symbol]]);
      line([[0, 1 / SYMBOLS], [run.steps, 1 / SYMBOLS]], "ink", 0.75, [4, 3]);
      for (let symbol = 0; symbol < SYMBOLS; ++symbol) if (symbol !== run.symbol) line(over(symbol), "input", 0.6);
      line(over(run.symbol), "fast", 2.5);
      write(pen, NAMES[run.symbol], x(step) + 4, y(run.probabilities[step][run.symbol]), "left", "fast");
    },
  });
}
