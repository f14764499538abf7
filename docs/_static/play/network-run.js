/* A network's run over a picture or other events, with everything that a page shows of it. It must know nothing about
   the page. */

/** A network with its encoder's settings and a stream. */
export function opened(runtime, bytes, { name, bits }) {
  const network = runtime.network(bytes), encoder = JSON.parse(network.text("encoder"));
  return { name, bits, network, encoder, steps: encoder.prefix + encoder.steps, stream: network.stream() };
}

/** A run over a picture. */
export function run(opened, picture, seed) {
  const { network, encoder } = opened, events = network.encode(picture, { seed });
  return { ...runOver(opened, events), encoder, shaded: [[0, encoder.prefix]] };
}

/** A run over events: first all steps at once, which is timed, and then step by step, of which everything is kept. */
export function runOver({ name, network, stream }, events) {
  const begin = performance.now(), { logits } = network.run(events), milliseconds = performance.now() - begin;
  return { name, steps: events.steps, events, logits, milliseconds, ...followed(network, stream, events) };
}

/** The active neurons of each step with their outputs, the number of spikes before each step, and the logits after
    each. */
function followed(network, stream, events) {
  const active = [], spikesBefore = [0], logitsAfter = [new Float32Array(network.classes)];
  stream.reset();
  for (let t = 0; t < events.steps; ++t) {
    stream.step(events.row(t));
    active.push([...stream.spikes().entries()].filter(([, spike]) => spike > 0));
    spikesBefore.push(spikesBefore[t] + active[t].length);
    logitsAfter.push(stream.logits());
  }
  const all = logitsAfter.flatMap((logits) => [...logits]), range = [Math.min(...all), Math.max(...all)];
  const { inputs, outputs: neurons, classes } = network;
  return { active, spikesBefore, logitsAfter, range, inputs, neurons, classes };
}

/** The number of events of the first steps. */
export function eventsBefore({ events }, step) {
  return events.offsets[step];
}

/** The classes, by descending logit. */
export function ranked(logits) {
  return [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
}

/** The class of the largest logit, or null while two classes share it. */
export function leader(logits) {
  const [first, second] = ranked(logits);
  return logits[first] > logits[second] ? first : null;
}
