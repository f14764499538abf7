/* The pictures of a run: input, votes, spikes. Each is { element, draw(run, step) } and shows what happened in the
   first `step` steps. They must know nothing about the runtime, or about who moves the step. */
import { LEFT, RIGHT, fill, overSteps, tint, view, write } from "./canvas.js";
import { SIDE } from "./drawing.js";
import { eventsBefore, leader, ranked } from "./network-run.js";

const ROWS = 2; // pixels of a neuron's row
const SO_FAR = 0.4; // ink of a pixel that was active as often as possible

function signed(x, digits = 1) {
  return x.toFixed(digits).replace("-", "\u2212");
}

/** The picture, in the ink of the theme. */
export function pictureView() {
  return view({
    name: "network-picture",
    describe: (picture) => `The picture of ${SIDE} by ${SIDE} pixels that the networks receive`
      + (picture.some((pixel) => pixel) ? "" : "; it is empty"),
    paint: (pen, size, picture) => pixels(pen, size, picture),
  });
}

function pixels(pen, { width }, picture) {
  const side = width / SIDE;
  pen.fillStyle = tint("ink");
  picture.forEach((pixel, at) => {
    pen.globalAlpha = pixel;
    pen.fillRect(at % SIDE * side, Math.floor(at / SIDE) * side, side, side);
  });
  pen.globalAlpha = 1;
}

/** How often each pixel has been active so far, and the active pixels of the last step. */
export function inputView() {
  return view({
    name: "network-picture",
    describe: (run, step) => step ? `${last(run, step).length} active pixels in step ${step}` : "Before the first step",
    paint: (pen, size, run, step) => {
      const side = size.width / SIDE, most = run.encoder.steps * Math.min(1, run.encoder.gain);
      const counts = new Float32Array(SIDE * SIDE);
      for (const at of run.events.indices.subarray(0, eventsBefore(run, step))) counts[at] += SO_FAR / most;
      pixels(pen, size, counts.map((count) => Math.min(count, SO_FAR)));
      for (const at of last(run, step))
        fill(pen, "fast", at % SIDE * side, Math.floor(at / SIDE) * side, side, side);
    },
  });
}

function last(run, step) {
  return step ? run.events.row(step - 1) : [];
}

/** A bar for each class. */
export function votesView() {
  return view({
    name: "network-votes", height: 110,
    caption: "Logits so far: the votes over the temperature. An output counts as a vote for its neuron's class, and a tenth as much against the others; in the float network a vote fades by 1 % per step.",
    describe: (run, step) => `Logits after step ${step}: `
      + [...run.logitsAfter[step].entries()].map(([c, logit]) => `${c}: ${signed(logit)}`).join(", "),
    paint: (pen, { width, height }, run, step) => {
      const logits = run.logitsAfter[step], [low, high] = run.range, slot = width / run.classes, first = leader(logits);
      const y = (logit) => 26 + (height - 42) * (high - logit) / (high - low);
      logits.forEach((logit, c) => {
        const x = slot * c, middle = x + slot / 2, name = c === first ? "fast" : "input";
        fill(pen, name, x + slot * 0.15, Math.min(y(logit), y(0)), slot * 0.7, Math.abs(y(logit) - y(0)));
        if (c === first) write(pen, "\u25bc", middle, 5, "center", "fast");
        write(pen, signed(logit), middle, Math.min(y(logit), y(0)) - 7, "center", name);
        write(pen, c, middle, height - 7, "center");
      });
      fill(pen, "ink", 0, y(0) - 0.5, width, 1);
    },
  });
}

/** The number of active pixels in each step. */
export function eventsView() {
  return overSteps({
    name: "network-events", height: 44,
    caption: "Active pixels of each step. The shaded steps are silent: they have no input.",
    describe: (run, step) => `Active pixels over the steps: ${eventsBefore(run, step)} in ${step} steps`,
    paint: (pen, { height }, run, step, x, wide) => {
      const count = (t) => eventsBefore(run, t + 1) - eventsBefore(run, t);
      const most = Math.max(1, ...Array.from({ length: run.steps }, (_, t) => count(t)));
      for (let t = 0; t < step; ++t) {
        const tall = (height - 6) * count(t) / most;
        fill(pen, "input", x(t), height - tall, Math.max(wide - 0.5, 0.75), tall);
      }
      write(pen, most, LEFT - 5, 7, "right");
      write(pen, 0, LEFT - 5, height - 6, "right");
    },
  });
}

/** The spikes of all neurons, ordered by the class that they vote for: neuron n votes for class n modulo classes. */
export function rasterView(neurons, classes) {
  const group = neurons / classes;
  return overSteps({
    name: "network-raster", height: neurons * ROWS,
    caption: `Active neurons over the steps, in rows of ${group} that vote for the same class.`,
    describe: (run, step) => `Active neurons, of ${neurons}, over ${step} steps; for each class: `
      + spikesOf(run, step).map((count, c) => `${c}: ${count}`).join(", "),
    paint: (pen, { width }, run, step, x, wide) => {
      const tall = group * ROWS, first = leader(run.logitsAfter[step]);
      for (let c = 0; c < classes; ++c) {
        if (c) fill(pen, "grid", LEFT, c * tall - 0.5, width - LEFT - RIGHT, 1);
        write(pen, c === first ? `\u25b6 ${c}` : c, LEFT - 5, (c + 0.5) * tall, "right", c === first ? "fast" : "ink");
      }
      run.active.slice(0, step).forEach((spikes, t) => spikes.forEach(([n, spike]) => {
        pen.globalAlpha = 0.4 + 0.6 * Math.min(spike, 1);
        const row = n % classes * group + Math.floor(n / classes);
        fill(pen, n % classes === first ? "fast" : "slow", x(t), row * ROWS, Math.max(wide, 1), ROWS);
      }));
      pen.globalAlpha = 1;
    },
  });
}

function spikesOf(run, step) {
  const counts = Array(run.classes).fill(0);
  for (const [n] of run.active.slice(0, step).flat()) ++counts[n % run.classes];
  return counts;
}

/** The logits over the steps; the two largest have names and thick lines. */
export function logitsView() {
  return overSteps({
    name: "network-logits", height: 100, caption: "Logits over the steps; the two largest are marked.",
    describe: (run, step) => {
      const logits = run.logitsAfter[step], [first, second] = ranked(logits);
      if (leader(logits) === null) return `Logits over ${step} steps: no class is ahead`;
      return `Logits over ${step} steps: ${first} leads with ${signed(logits[first])}, then ${second} with `
        + signed(logits[second]);
    },
    paint: (pen, { width, height }, run, step, x) => {
      const [low, high] = run.range, y = (logit) => 6 + (height - 12) * (high - logit) / (high - low);
      fill(pen, "grid", LEFT, y(0) - 0.5, width - LEFT - RIGHT, 1);
      const marks = [high, 0, low].filter((mark) => !mark || Math.abs(y(mark) - y(0)) > 12);
      for (const mark of marks) write(pen, signed(mark, 0), LEFT - 5, y(mark), "right");
      const order = ranked(run.logitsAfter[step]);
      for (const c of [...order].reverse()) {
        const place = order.indexOf(c);
        pen.strokeStyle = tint(["fast", "slow"][place] ?? "input");
        pen.lineWidth = [2.5, 1.75][place] ?? 0.6;
        pen.beginPath();
        for (let t = 0; t <= step; ++t) pen.lineTo(x(t), y(run.logitsAfter[t][c]));
        pen.stroke();
      }
      if (leader(run.logitsAfter[step]) !== null) names(pen, order.slice(0, 2), run.logitsAfter[step], x(step) + 4, y);
    },
  });
}

function names(pen, [first, second], logits, x, y) {
  write(pen, first, x, y(logits[first]), "left", "fast");
  write(pen, second, x, Math.max(y(logits[second]), y(logits[first]) + 11), "left", "slow");
}
