/* The networks that the page compares, and their results. They must know nothing about the page. */
import { ranked, runOver } from "./network-run.js";
import { SHOWN, SYMBOLS, trials } from "./sequence-task.js";
import { fetched } from "./srcell.js";

const CHANCE = new Float32Array(SYMBOLS).fill(1 / SYMBOLS); // before the first step

/** The network with recurrent (lateral) weights, the same network without them, and one that was trained without
    any. */
export async function networksOf(runtime) {
  const at = (file) => fetched(new URL(`./${file}`, import.meta.url));
  const [lateral, alone] = await Promise.all([at("recall.srcell"), at("recall-alone.srcell")]);
  return [
    opened(runtime, lateral, "With recurrent weights", "with recurrent weights"),
    opened(runtime, withZeros(lateral, "layers.0.lateral"), "Its recurrent weights removed", "with them removed"),
    opened(runtime, alone, "Trained without", "trained without"),
  ];
}

function opened(runtime, bytes, name, said) {
  const network = runtime.network(bytes);
  return { name, said, network, stream: network.stream() };
}

/** A copy of a network's file (safetensors) with all numbers of one tensor set to 0. */
function withZeros(bytes, tensor) {
  const copy = new Uint8Array(bytes.slice(0)), data = 8 + Number(new DataView(copy.buffer).getBigUint64(0, true));
  const [begin, end] = JSON.parse(new TextDecoder().decode(copy.subarray(8, data)))[tensor].data_offsets;
  return copy.fill(0, data + begin, data + end);
}

/** A network's run over the events of one trial. */
export function attempt(opened, events, { symbol, delay }) {
  const run = runOver(opened, events), answer = ranked(run.logits)[0];
  const probabilities = run.logitsAfter.map((logits, step) => step ? softmax(logits) : CHANCE);
  const shaded = [[0, SHOWN], [SHOWN + delay, SHOWN + delay + SHOWN]];
  return { ...run, symbol, delay, answer, probabilities, shaded, right: answer === symbol };
}

/** How many of `count` fresh trials, of all symbols in turn, a network gets right, and in how many milliseconds. */
export function counted({ network, said }, runtime, count, delay, seed) {
  const symbols = Array.from({ length: count }, (_, trial) => trial % SYMBOLS);
  const events = trials(runtime, symbols, delay, seed);
  const begin = performance.now(), { logits } = network.run(events), milliseconds = performance.now() - begin;
  const answers = symbols.map((_, trial) => ranked(logits.subarray(trial * SYMBOLS, (trial + 1) * SYMBOLS))[0]);
  return { said, milliseconds, right: answers.filter((answer, trial) => answer === symbols[trial]).length };
}

function softmax(logits) {
  const most = Math.max(...logits), powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
