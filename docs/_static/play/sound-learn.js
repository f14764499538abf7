/* How a network learns words from a few recordings. For browsers and node; it must know nothing about the page. */
import { draws } from "./sound-voice.js";
import { Events } from "./srcell.js";

/* What a lesson gives to the learner, and its passes over the recordings; `varied`: loudness, bands and tempo change in
   each. */
export const VOICE = { passes: 30, batch: 5, varied: true, learner: { learningRate: 1e-3, layers: "all" } };
export const WORDS = { passes: 20, batch: 5, varied: true, learner: { learningRate: 3e-3, layers: "all" } };

const MOST_NO_WORDS = 20; // sounds that are no words, in a lesson
const COLOURS = [0, 0.5, 0.95]; // of noise, from white to brown: the share that a sample keeps of the one before
const LOUDER = 1.5, STRETCH = 1.5, TEMPO = 0.15; // powers of two, bands, and share of the duration

/** Learns from samples, { currents (T * K numbers), label, word }; gives { pass, loss, right, bytes } after each pass: the
    mean loss during it, the number of words that the network then answers right, and the network's file. */
export function* learning(runtime, bytes, samples, { passes, learner: settings, ...others }) {
  const network = runtime.network(bytes), learner = network.learner(settings), draw = draws();
  try {
    for (let pass = 1; pass <= passes; ++pass) {
      let loss = 0;
      for (const { events, labels, lengths } of batches(samples, network.inputs, others, draw))
        loss += learner.step(events, labels, { lengths }) * labels.length / samples.length;
      const learnt = learner.network(), right = rightOf(learnt, samples.filter(({ word }) => word)), file = learnt.bytes();
      learnt.free();
      yield { pass, passes, loss, right, bytes: file };
    }
  } finally {
    learner.free();
    network.free();
  }
}

/** The samples of a lesson: recordings, { samples, label }, and for a network with an answer for what is no word, whose
    label is then `none`, sounds that are none. */
export function samplesOf(recordings, none, currentsOf) {
  const others = none < 0 ? [] : noWords(recordings.map(({ samples }) => samples));
  return [...recordings.map(({ samples, label }) => ({ currents: currentsOf(samples), label, word: true })),
    ...others.map((sound) => ({ currents: currentsOf(sound), label: none, word: false }))];
}

/** The batches of one pass, in a random order. */
export function* batches(samples, inputs, { batch, varied: vary }, draw) {
  const order = shuffled(samples, draw);
  for (let at = 0; at < order.length; at += batch)
    yield batchOf(order.slice(at, at + batch).map(({ currents, label }) =>
      ({ currents: vary ? varied(currents, inputs, draw) : currents, label })), inputs);
}

/** Samples side by side, as events; a shorter one has none after its length. */
export function batchOf(samples, inputs) {
  const lengths = samples.map(({ currents }) => currents.length / inputs), steps = Math.max(...lengths), offsets = [0];
  for (const length of lengths)
    for (let step = 1; step <= steps; ++step) offsets.push(offsets.at(-1) + (step <= length ? inputs : 0));
  const values = new Float32Array(offsets.at(-1)), indices = Int32Array.from(values, (_, at) => at % inputs);
  samples.reduce((at, { currents }) => (values.set(currents, at), at + currents.length), 0);
  const events = new Events(steps, samples.length, offsets, indices, values);
  return { events, labels: samples.map(({ label }) => label), lengths };
}

/** Sounds that are no words, for a network that has an answer for these and would forget it: in turn a recording backwards
    and noise as long and as loud; of fewer recordings more noise. In their usual order no nine is turned, which would be
    a nine again. */
function noWords(recordings) {
  const draw = draws(), count = recordings.length;
  return Array.from({ length: Math.min(MOST_NO_WORDS, 2 * count) }, (_, k) => {
    const samples = recordings[k % count], noise = k % 2 || k >= count;
    return noise ? noiseLike(samples, COLOURS[k % COLOURS.length], draw) : Float32Array.from(samples).reverse();
  });
}

function noiseLike(samples, colour, draw) {
  const power = (x) => x.reduce((sum, sample) => sum + sample * sample, 0), count = samples.length;
  let last = 0;
  const noise = samples.map((_, at) => {
    last = colour * last + draw();
    return at > 0.2 * count && at < 0.75 * count ? last : last / 100; // the word is in the middle
  });
  const louder = Math.sqrt(power(samples) / power(noise));
  return noise.map((sample) => louder * sample);
}

/** The number of samples whose label has the largest logit. */
export function rightOf(network, samples) {
  const { events, labels, lengths } = batchOf(samples, network.inputs), { logits } = network.run(events, lengths);
  return labels.filter((label, b) => {
    const own = logits.subarray(b * network.classes, (b + 1) * network.classes);
    return own.indexOf(Math.max(...own)) === label;
  }).length;
}

/** Currents of a louder or quieter, slower or faster sound whose bands are stretched; without an offset, a current is in
    proportion to the levels. */
function varied(currents, bands, draw) {
  const louder = 2 ** (LOUDER * draw() / 4), middle = (bands - 1) / 2, wider = 1 + STRETCH * draw() / middle;
  const steps = currents.length / bands, longer = Math.max(2, Math.round(steps * (1 + TEMPO * draw())));
  const made = new Float32Array(longer * bands), between = (at, share, next) =>
    currents[at] * (1 - share) + currents[at + next] * share;
  for (let step = 0; step < longer; ++step) {
    const time = step * (steps - 1) / (longer - 1), first = Math.min(Math.floor(time), steps - 2), later = time - first;
    for (let band = 0; band < bands; ++band) {
      const source = Math.max(0, Math.min(bands - 1, middle + (band - middle) * wider));
      const below = Math.min(Math.floor(source), bands - 2), at = first * bands + below, share = source - below;
      made[step * bands + band] =
        louder * (between(at, share, 1) * (1 - later) + between(at + bands, share, 1) * later);
    }
  }
  return made;
}

/** A list in a random order; `draw` gives numbers in [-1, 1). */
export function shuffled(list, draw) {
  const made = [...list];
  for (let last = made.length - 1; last > 0; --last) {
    const other = Math.floor((draw() + 1) / 2 * (last + 1));
    [made[last], made[other]] = [made[other], made[last]];
  }
  return made;
}
