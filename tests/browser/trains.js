/* Runs exported networks on events with the WebAssembly module, in node and in a browser; test_browser.py compares the
   results with native code. In node: node trains.js CASES.json SRCELL.js SRCELL.wasm */

const numbers = (Type, text) => (text === null ? null : new Type(bytes(text).buffer));

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

async function digest(array) {
  const sum = await crypto.subtle.digest("SHA-256", array);
  return Array.from(new Uint8Array(sum), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** For each case the hashes of its spikes (T, B, N), from one call and step by step, and its logits. */
async function trains(runtime, cases) {
  const made = {};
  for (const [name, given] of Object.entries(cases)) {
    const network = runtime.network(bytes(given.network));
    const events = { steps: given.steps, batch: given.batch, offsets: numbers(BigInt64Array, given.offsets),
      indices: numbers(Int32Array, given.indices), values: numbers(Float32Array, given.values) };
    const { spikes, logits } = network.run(events, given.lengths);
    made[name] = { events: spikes.filter((spike) => spike !== 0).length, sha256: await digest(spikes),
      logits: Array.from(logits) };
    if (!given.lengths) made[name].stream = await digest(streamed(network, events));
    network.free();
  }
  return made;
}

function streamed(network, { steps, batch, offsets, indices, values }) {
  const stream = network.stream(batch), plane = batch * network.outputs, made = new Float32Array(steps * plane);
  for (let t = 0; t < steps; ++t) {
    const ends = [0], active = [], graded = [];
    for (let b = 0; b < batch; ++b) {
      const [from, to] = [Number(offsets[b * steps + t]), Number(offsets[b * steps + t + 1])];
      active.push(...indices.slice(from, to));
      if (values) graded.push(...values.slice(from, to));
      ends.push(active.length);
    }
    stream.rows(ends, active, values ? graded : null);
    made.set(stream.spikes(), t * plane);
  }
  stream.free();
  return made;
}

/** The events that the encoder makes from images; pixels are float32 in base64. */
function encoded(runtime, { pixels, inputs, settings }) {
  const { offsets, indices } = runtime.encodeRate(numbers(Float32Array, pixels), inputs, settings);
  return { offsets: Array.from(offsets), indices: Array.from(indices) };
}

/** The events of pictures before the camera of an exported network. */
function seen(runtime, { network, pictures, pixels, seed, index }) {
  const given = numbers(Float32Array, pictures);
  const { steps, batch, offsets, indices } = runtime.network(bytes(network)).encode(given, { pixels, seed, index });
  return { steps, batch, offsets: Array.from(offsets), indices: Array.from(indices) };
}

/** The messages of refused calls, and the spikes of a valid step after them. */
function refusals(runtime, { network, images }) {
  const read = runtime.network(bytes(network)), stream = read.stream();
  const texts = [
    () => runtime.network(new Uint8Array(20)),
    () => stream.step([-1]),
    () => read.stream(-1),
    () => runtime.encodeRate([2], 1, { steps: 3 }),
    () => runtime.encodeRate(images, 1, { steps: 3, gain: -1 }),
    () => runtime.encodeRate(images, 1, {}),
    () => runtime.encodeRate(images, 1, { steps: 3, index: [1, 2] }),
    () => stream.step([0], [1, 2]),
    () => stream.step([NaN]),
    () => stream.dense([1, 2]),
    () => runtime.scratch((scratch) => scratch.room(2 ** 32 + 64)),
  ].map((call) => {
    try {
      call();
      return null;
    } catch (error) {
      return error.message;
    }
  });
  for (let k = 0; k < 2000; ++k) {
    try { stream.step([-1]); } catch { /* the stack must not grow */ }
  }
  stream.step([0]);
  const found = Array.from(stream.spikes());
  stream.free();
  read.free();
  return { texts, found };
}

/** The hash of the state after a sound that comes in chunks of some sizes, and the logits; for each network. */
async function heard(runtime, { networks, sound, sizes }) {
  const made = {}, samples = numbers(Float32Array, sound);
  for (const [name, network] of Object.entries(networks)) {
    const read = runtime.network(bytes(network)), stream = read.stream();
    let steps = 0, at = 0;
    for (let k = 0; at < samples.length; ++k) {
      steps += stream.hear(samples.slice(at, at + sizes[k % sizes.length]));
      at += sizes[k % sizes.length];
    }
    made[name] = { steps, logits: Array.from(stream.logits()) };
    stream.free();
    read.free();
  }
  return made;
}

/** The logits of B sequences after each element, from a stream, and those of a run of the encoded sequences; the steps
    of the first two elements. */
async function fed(runtime, { networks, values, batch, elements }) {
  const made = {}, numbersOf = numbers(Float32Array, values), K = numbersOf.length / (batch * elements);
  for (const [name, network] of Object.entries(networks)) {
    const read = runtime.network(bytes(network)), stream = read.stream(batch), steps = [], logits = [];
    for (let element = 0; element < elements; ++element) {
      const rows = Array.from({ length: batch }, (_, b) => (b * elements + element) * K);
      steps.push(stream.feed(rows.flatMap((at) => Array.from(numbersOf.slice(at, at + K)))));
      logits.push(...stream.logits());
    }
    made[name] = { steps, logits, run: Array.from(read.run(read.encode(numbersOf, { batch })).logits) };
    stream.free();
    read.free();
  }
  return made;
}

/** What learners give: their losses, the hash of their state, the logits of what was learnt, and its classes; and the
    messages of refused calls, which change nothing. */
async function learnt(runtime, { networks, events, labels, values, lengths, classes }) {
  const made = {}, batch = { ...events, offsets: numbers(BigInt64Array, events.offsets),
    indices: numbers(Int32Array, events.indices), values: numbers(Float32Array, events.values) };
  for (const [name, content] of Object.entries(networks)) {
    const network = runtime.network(bytes(content)), learner = network.learner({ learningRate: 1e-2, classes });
    const losses = [];
    for (let k = 0; k < 3; ++k) losses.push(learner.step(batch, Int32Array.from(labels), { lengths }));
    losses.push(learner.step(batch, numbers(Float32Array, values), { lengths, everyStep: true }));
    const state = learner.save(), texts = [
      () => learner.step(batch, Int32Array.from(labels, () => 9), { lengths }),
      () => learner.step(batch, Int32Array.from([0])),
      () => learner.restore(state.slice(1)),
      () => network.learner({ learningRate: 0 }),
      () => network.learner({ layers: "none" }),
    ].map((call) => {
      try {
        call();
        return null;
      } catch (error) {
        return error.message;
      }
    });
    const other = network.learner({ learningRate: 1e-2, classes });
    other.restore(learner.save());
    const better = other.network(), again = runtime.network(better.bytes());
    made[name] = { losses, texts, sha256: await digest(learner.save()), unchanged: await digest(state),
      logits: Array.from(again.run(batch, lengths).logits), classes: again.classNames };
  }
  return made;
}

/** What all cases give; those of the networks go through trains(). */
export async function results(runtime, given) {
  return { trains: await trains(runtime, given.trains), composed: await trains(runtime, given.composed),
    heard: await heard(runtime, given.heard), fed: await fed(runtime, given.fed), encoded: encoded(runtime, given.encoded), seen: seen(runtime, given.seen),
    learnt: await learnt(runtime, given.learnt), refusals: refusals(runtime, given.refusals) };
}

if (globalThis.process?.argv[1]?.endsWith("trains.js")) {
  const { readFile } = await import("node:fs/promises");
  const [cases, script, module] = process.argv.slice(2);
  const { load } = await import(script);
  const given = JSON.parse(await readFile(cases)), runtime = await load(await readFile(module));
  console.log(JSON.stringify(await results(runtime, given)));
}
