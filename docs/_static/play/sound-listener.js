/* Hears a sound frame by frame: the levels of its bands, where a word begins and ends, and the network's answer. It must
   know nothing about the page, or about where the sound comes from. */
import { ranked } from "./network-run.js";

export const NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "no digit"];
export const NONE = "no digit";

const BEFORE = 0.25, QUIET = 0.3, LONGEST = 1.6; // seconds
const LOUD = 3; // frames in a row that begin a word
const LOUDER = 9, SOFTER = 6; // dB above the noise at which a word begins, and below which it ends
const SOFTEST = -75; // dB; what is below begins no word
const SILENCE = -90; // dB
const SAMPLE = 10, RANGE = 20; // seconds of a sound in which its noise is measured; dB that it is below the loudest frame
const RISE = 4; // dB in a second by which the estimate of the noise rises
const HABIT = 0.3; // of the distance in each frame, by which it falls
const KEPT = 20; // words

/** The network, and what it heard: `columns`, the last frames, and `words`, the last answers. */
export class Listener {
  constructor(runtime, bytes, seconds) {
    const network = runtime.network(bytes), encoder = JSON.parse(network.text("encoder")), { rate } = encoder;
    const hop = Math.round(encoder.frame * rate), ear = runtime.network(earFile(bytes));
    Object.assign(this, { runtime, network, encoder, stream: network.stream(), ear, rate, hop, words: [], ended: 0 });
    this.names = namesOf(network);
    this.levels = this.ear.stream();
    this.currents = runtime.network(earFile(bytes, false)).stream();
    this.frames = Math.round(seconds * rate / hop);
    this.bands = this.ear.outputs;
    this.clear();
  }

  /** Hears with another network from now on, also the word that lasts. It must have the cochlea and as many neurons as
      the one before. */
  use(bytes) {
    const network = this.runtime.network(bytes), encoder = parsed(network.text("encoder"));
    if (JSON.stringify(encoder) !== JSON.stringify(this.encoder) || network.outputs !== this.network.outputs
      || network.classes < 2) {
      network.free();
      throw new Error(`expected a network with this page's cochlea, ${this.network.outputs} neurons and at least 2 classes`);
    }
    let stream, names;
    try {
      [names, stream] = [namesOf(network), network.stream()];
    } catch (error) {
      network.free();
      throw error;
    }
    this.stream.free();
    this.network.free();
    Object.assign(this, { network, stream, names });
    if (!this.word) return;
    const { columns } = this.word;
    this.word = { columns: [], spikes: 0 };
    for (const column of columns) this.step(column);
  }

  /** The currents (T * K numbers) of the network's inputs for the samples of a word. */
  currentsOf(samples) {
    const { hop, currents, bands } = this, steps = Math.floor(samples.length / hop), made = new Float32Array(steps * bands);
    currents.reset();
    for (let step = 0; step < steps; ++step) {
      currents.hear(samples.slice(step * hop, (step + 1) * hop));
      made.set(currents.values().i, step * bands);
    }
    return made;
  }

  /** Forgets what it heard, except the words; the level of the noise is measured for `settle` seconds first, and is at
      least `noise`. */
  clear(settle = 0, noise = SILENCE) {
    Object.assign(this, { columns: [], word: null, heard: 0, milliseconds: 0, rest: new Float32Array(0) });
    this.gate = new Gate(this.hop / this.rate, settle, noise);
    this.levels.reset();
  }

  /** The level of the noise of a whole sound: a tenth of its frames are softer. */
  noiseOf(samples) {
    const { hop, levels } = this, count = Math.floor(Math.min(samples.length, SAMPLE * this.rate) / hop);
    levels.reset();
    const found = Array.from({ length: count }, (_, frame) => {
      levels.hear(samples.slice(frame * hop, (frame + 1) * hop));
      return levelOf(levels.values().i);
    }).sort((a, b) => a - b);
    return count ? Math.min(found[Math.floor(count / 10)], found.at(-1) - RANGE) : SILENCE;
  }

  /** Hears samples; returns how many words ended. */
  hear(samples) {
    const held = new Float32Array(this.rest.length + samples.length), begin = performance.now(), before = this.ended;
    held.set(this.rest);
    held.set(samples, this.rest.length);
    let at = 0;
    for (; at + this.hop <= held.length; at += this.hop) this.frame(held.slice(at, at + this.hop));
    this.rest = held.slice(at);
    this.heard += samples.length / this.rate;
    this.milliseconds += performance.now() - begin;
    return this.ended - before;
  }

  frame(samples) {
    this.levels.hear(samples);
    const column = { samples, bands: this.levels.values().i, word: null };
    const turn = this.gate.next(levelOf(column.bands));
    this.columns.push(column);
    if (this.columns.length > this.frames) this.columns.shift();
    if (turn === "begin") this.begin();
    else if (this.word) this.step(column);
    if (turn === "end") this.end();
  }

  /** Begins a word a little earlier than its level shows: its first consonant may be soft. */
  begin() {
    this.stream.reset();
    this.word = { columns: [], spikes: 0 };
    for (const column of this.columns.slice(-Math.round(BEFORE * this.rate / this.hop))) this.step(column);
  }

  step(column) {
    this.stream.hear(column.samples);
    column.active = [...this.stream.spikes().entries()].filter(([, spike]) => spike > 0);
    const answer = answerOf(this.names, this.stream.logits());
    Object.assign(column, { word: this.ended, names: answer.names, probabilities: answer.probabilities });
    this.word.columns.push(column);
    this.word.spikes += column.active.length;
    Object.assign(this.word, answer);
  }

  end() {
    this.words.push(this.word);
    if (this.words.length > KEPT) this.words.shift();
    this.word = null;
    ++this.ended;
  }

  /** Ends the word that lasts, as when the microphone is released; returns whether there was one. */
  stop() {
    const lasts = this.word !== null;
    if (lasts) this.end();
    return lasts;
  }
}

/** Finds words by their level. */
class Gate {
  constructor(seconds, settle, least) {
    const frames = (time) => Math.round(time / seconds);
    Object.assign(this, { rise: RISE * seconds, quiet: frames(QUIET), longest: frames(LONGEST) });
    Object.assign(this, { settle: frames(settle), least, noise: null, loud: 0, soft: 0, lasts: 0 });
  }

  /** Takes the level of a frame in dB; returns "begin", "end" or null. */
  next(heard) {
    const level = Math.max(heard, this.least);
    this.noise ??= level;
    if (this.settle) return this.measure(level);
    if (this.lasts) return this.within(level);
    this.noise += level < this.noise ? HABIT * (level - this.noise) : Math.min(this.rise, level - this.noise);
    this.loud = level > Math.max(this.noise + LOUDER, SOFTEST) ? this.loud + 1 : 0;
    if (this.loud < LOUD) return null;
    Object.assign(this, { loud: 0, soft: 0, lasts: 1 });
    return "begin";
  }

  measure(level) {
    this.noise += HABIT * (level - this.noise);
    --this.settle;
    return null;
  }

  within(level) {
    this.soft = level < Math.max(this.noise + SOFTER, SOFTEST) ? this.soft + 1 : 0;
    if (++this.lasts <= this.longest && this.soft < this.quiet) return null;
    if (this.lasts > this.longest) this.noise = Math.max(this.noise, level); // a noise that stays
    this.lasts = 0;
    return "end";
  }
}

/** The level of the bands' fourth roots of amplitudes, in dB. */
function levelOf(bands) {
  const power = bands.reduce((sum, y) => sum + y ** 8, 0) / bands.length;
  return Math.max(SILENCE, 10 * Math.log10(power));
}

/** What a text of a file says as JSON; undefined if it is no JSON. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The names of a network's classes: those in its file, or the digits. */
export function namesOf(network) {
  const { classNames, classes } = network;
  return classNames ?? (classes === NAMES.length ? NAMES : Array.from({ length: classes }, (_, c) => `class ${c}`));
}

/** An answer: the class of the largest logit, and the probabilities of all classes. */
export function answerOf(names, logits) {
  const most = Math.max(...logits), powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((total, power) => total + power, 0);
  return { names, logits, probabilities: powers.map((power) => power / sum), answer: ranked(logits)[0] };
}

/** The file of a network whose neuron k has the current of band k as its i: weights 1, no leak, and the same cochlea; with
    `levels` without threshold, adaptation, offset and scale, so that i is the band's level. */
function earFile(bytes, levels = true) {
  const all = new Uint8Array(bytes), data = 8 + Number(new DataView(all.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(all.subarray(8, data)));
  const made = { __metadata__: { ...header.__metadata__, readout: "none" } }, parts = [];
  const put = (name, dtype, shape, numbers) => {
    const begin = parts.reduce((sum, part) => sum + part.length, 0), part = new Uint8Array(numbers.buffer);
    made[name] = { dtype, shape, data_offsets: [begin, begin + part.length] };
    parts.push(part);
  };
  const bands = header["sound.offset"].shape[0];
  for (const name of ["sections", "constants", "offset", "scale"]) {
    const { dtype, shape, data_offsets: [from, to] } = header[`sound.${name}`];
    const numbers = new Float64Array(all.slice(data + from, data + to).buffer);
    if (levels && name === "constants") numbers.fill(0, 4, 6); // adaptation, threshold
    if (levels && name === "offset") numbers.fill(0);
    if (levels && name === "scale") numbers.fill(1);
    put(`sound.${name}`, dtype, shape, numbers);
  }
  const one = Float32Array.from({ length: bands * bands }, (_, at) => at % (bands + 1) ? 0 : 1);
  put("layers.0.weight", "F32", [bands, bands], one);
  put("layers.0.bias", "F32", [bands], new Float32Array(bands).fill(-6));
  for (const [name, value] of Object.entries({ alpha: 0, rho: 3, r: 2, rs: -7, zs_hyp: 0.9, zs_dep: 0 }))
    put(`layers.0.${name}`, "F32", [1], Float32Array.of(value));
  const words = JSON.stringify(made), text = new TextEncoder().encode(words.padEnd(8 * Math.ceil(words.length / 8)));
  const file = new Uint8Array(8 + text.length + parts.reduce((sum, part) => sum + part.length, 0));
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  parts.reduce((at, part) => (file.set(part, at), at + part.length), 8 + text.length);
  return file;
}
