/* The pictures of what a listener heard: the levels of the bands, spikes, probabilities, votes. Those over time show the
   last frames, the latest at the right. They must know nothing about the runtime, or about where the sound comes
   from. */
import { LEFT, RIGHT, fill, overSteps, tint, view, write } from "./canvas.js";
import { ranked } from "./network-run.js";
import { NAMES, NONE } from "./sound-listener.js";

const BAND = 4, NEURON = 1.5; // pixels of a row
const FAINT = 0.12, FULL = 0.5; // levels that are shown as nothing and in full ink: fourth roots of amplitudes
const MARK = 0.5; // seconds between the marks of time
const SURE = 0.9; // probability
const LEAST = 6; // logits above and below 0 that the votes have room for

/** What the pictures show of a listener: its columns, moved to the right. */
export function shownOf({ columns, frames, words, word, hop, rate, names }) {
  const free = frames - columns.length, shaded = [];
  columns.forEach(({ word }, at) => {
    if (word === null) return;
    if (at && columns[at - 1].word === word) ++shaded.at(-1)[1];
    else shaded.push([free + at, free + at + 1]);
  });
  return { steps: frames, columns, free, shaded, names, word: word ?? words.at(-1), lasts: Boolean(word), frame: hop / rate };
}

/** A view over the last frames, with marks of time under it. */
function overTime({ height, paint, ...rest }) {
  return overSteps({
    name: "sound-canvas", height: height + 14, ...rest,
    paint: (pen, size, run, _, x, wide) => {
      const seconds = run.steps * run.frame;
      for (let ago = 0; ago <= seconds; ago += MARK)
        fill(pen, "grid", x(run.steps - ago / run.frame) - 0.5, 0, 1, height + 3);
      write(pen, "now", x(run.steps), height + 9, "right");
      for (let ago = 1; ago < seconds; ++ago)
        write(pen, `\u2212${ago} s`, x(run.steps - ago / run.frame), height + 9, "center");
      paint(pen, { ...size, height }, run, x, wide);
    },
  });
}

/** Paints a cell for each row of each column: `inks(column, set)` calls set(row, ink) for cells whose ink in [0, 1] is
    not 0. */
function cells(pen, { height }, { columns, free }, rows, name, x, inks) {
  if (!columns.length) return;
  const wide = columns.length, image = new ImageData(wide, rows), small = new OffscreenCanvas(wide, rows);
  const [red, green, blue] = [1, 3, 5].map((from) => Number.parseInt(tint(name).slice(from, from + 2), 16));
  columns.forEach((column, at) => inks(column, (row, ink) => {
    const pixel = 4 * (row * wide + at);
    image.data[pixel] = red;
    image.data[pixel + 1] = green;
    image.data[pixel + 2] = blue;
    image.data[pixel + 3] = 255 * ink;
  }));
  small.getContext("2d").putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, x(free), 0, x(free + wide) - x(free), height);
}

/** The levels of the bands: what the cochlea computes from the sound. */
export function bandsView(bands, [lowest, highest]) {
  const height = bands * BAND;
  return overTime({
    height,
    caption: `Cochleagram: the levels of ${bands} bands of frequencies, from ${lowest} to ${highest} Hz. Shaded: a `
      + "word, with a quarter of a second before it.",
    describe: (run) => `Cochleagram of the last ${(run.steps * run.frame).toFixed(0)} seconds`,
    paint: (pen, size, run, x) => {
      cells(pen, size, run, bands, "slow", x, ({ bands: levels }, set) => levels.forEach((level, band) =>
        set(bands - 1 - band, Math.max(0, Math.min(1, (level - FAINT) / (FULL - FAINT))))));
      const marks = [[highest / 1000, 6], ["kHz", height / 2], [lowest / 1000, height - 6]];
      for (const [mark, y] of marks) write(pen, mark, LEFT - 5, y, "right");
    },
  });
}

/** The spikes of the neurons. */
export function rasterView(neurons) {
  const height = neurons * NEURON;
  return overTime({
    height,
    caption: `Spikes of the ${neurons} neurons. The network runs while a word lasts; neuron 1 has the shortest time `
      + "constant.",
    describe: ({ word, lasts }) => word ? `Active neurons: ${word.spikes} outputs in the ${lasts ? "present" : "last"} word`
      : `Active neurons, of ${neurons}: none yet`,
    paint: (pen, size, run, x) => {
      write(pen, 1, LEFT - 5, 6, "right");
      write(pen, neurons, LEFT - 5, height - 6, "right");
      cells(pen, size, run, neurons, "drive", x, ({ active = [] }, set) => active.forEach(([neuron, spike]) =>
        set(neuron, 0.4 + 0.6 * Math.min(spike, 1))));
    },
  });
}

/** The probability of each digit over time. */
export function probabilitiesView() {
  return overTime({
    height: 84,
    caption: "Probability of each answer while a word lasts; the answer at its end has the thick line, \u201cno "
      + "digit\u201d the dashed one.",
    describe: ({ word }) => `Probabilities over time; ${word ? `now ${saidOf(word)}` : "no word yet"}`,
    paint: (pen, { width, height }, run, x) => {
      const y = (probability) => height - 5 - (height - 10) * probability;
      fill(pen, "grid", LEFT, y(0), width - LEFT - RIGHT, 1);
      for (const mark of [0, 1]) write(pen, mark, LEFT - 5, y(mark), "right");
      for (const [from, to] of run.shaded) {
        const part = run.columns.slice(from - run.free, to - run.free), { names, probabilities: now } = part.at(-1);
        const last = ranked(now)[0];
        for (let c = 0; c < names.length; ++c) {
          Object.assign(pen, { strokeStyle: tint(c === last ? "fast" : "input"), lineWidth: c === last ? 2.5 : 0.75 });
          pen.setLineDash(names[c] === NONE ? [4, 3] : []);
          pen.beginPath();
          part.forEach(({ probabilities }, at) => pen.lineTo(x(from + at + 0.5), y(probabilities[c])));
          pen.stroke();
        }
        pen.setLineDash([]);
        write(pen, labelOf(names[last]), x(to) + 4, y(now[last]) + 5, "left", "fast");
      }
    },
  });
}

/** A bar for each answer. */
export function votesView() {
  return view({
    name: "sound-votes", height: 120,
    caption: "Votes (logits): the spikes so far, weighted by the readout; a spike fades by 2 % in each step.",
    describe: ({ word }) => {
      if (!word) return "Votes: no word yet";
      return `Votes: ${word.names.map((name, c) => `${name} ${word.logits[c].toFixed(1)}`).join(", ")}`;
    },
    paint: (pen, { width, height }, { word, names: known }) => {
      const names = word?.names ?? known, logits = word?.logits ?? new Float32Array(names.length);
      const slot = width / names.length;
      const high = Math.max(LEAST, ...logits), low = Math.min(-LEAST, ...logits), first = word ? word.answer : null;
      const y = (logit) => 8 + (height - 28) * (high - logit) / (high - low);
      logits.forEach((logit, c) => {
        const name = c === first ? "fast" : "input";
        fill(pen, name, slot * (c + 0.15), Math.min(y(logit), y(0)), slot * 0.7, Math.abs(y(logit) - y(0)));
        const label = shortened(pen, labelOf(names[c]), slot - 4);
        write(pen, label, slot * (c + 0.5), height - 7, "center", c === first ? "fast" : "ink");
      });
      fill(pen, "ink", 0, y(0) - 0.5, width, 1);
    },
  });
}

/** A text of at most that width. */
function shortened(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  let kept = text;
  while (kept && pen.measureText(`${kept}\u2026`).width > width) kept = kept.slice(0, -1);
  return `${kept}\u2026`;
}

/** A short form of a class's name. */
export function labelOf(name) {
  const digit = NAMES.indexOf(name);
  return name === NONE ? "none" : digit < 0 ? name : String(digit);
}

/** Whether an answer is probable enough to be given without a question mark; experiments/say_a_digit.py has the same bound. */
export function isSure({ answer, probabilities }) {
  return probabilities[answer].toFixed(2) >= SURE;
}

/** A short name of an answer, with a question mark if it is not sure. */
export function guessOf(word) {
  return labelOf(word.names[word.answer]) + (isSure(word) ? "" : "?");
}

/** An answer and its probability in words. */
export function saidOf({ names, answer, probabilities }) {
  return `${names[answer]}, p = ${probabilities[answer].toFixed(2)}`;
}
