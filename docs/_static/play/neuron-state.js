/* The settings of the neuron's page: ranges, inputs, presets, and how a link keeps them. It must know nothing about the
   runtime or the page's elements. */

export const STEPS = 240;

/** The neuron's parameters, with the library's names and default values. */
export const PARAMETERS = {
  bias: { value: -6, min: -8, max: -2, step: 0.1, digits: 1, label: "Bias", symbol: "b" },
  alpha: { value: 0.9, min: 0, max: 0.99, step: 0.01, digits: 2, label: "Integrator", symbol: "alpha" },
  omega: { value: 0, min: 0, max: 1, step: 0.01, digits: 2, label: "Resonance", symbol: "omega" },
  rho: { value: 3, min: 1, max: 6, step: 0.1, digits: 1, label: "Drive bound", symbol: "rho" },
  r: { value: 2, min: 0, max: 4, step: 0.1, digits: 1, label: "Positive feedback", symbol: "r" },
  rs: { value: -7, min: -10, max: -2, step: 0.1, digits: 1, label: "Negative feedback", symbol: "rs" },
  zs_hyp: { value: 0.9, min: 0, max: 0.99, step: 0.01, digits: 2, label: "Silent gate", symbol: "zs_hyp" },
  zs_dep: { value: 0, min: 0, max: 0.99, step: 0.01, digits: 2, label: "Spike gate", symbol: "zs_dep" },
};

export const INPUTS = {
  drive: { value: 0, min: 0, max: 2, step: 0.01, digits: 2, label: "Steady current" },
  noise: { value: 0, min: 0, max: 1, step: 0.02, digits: 2, label: "Noise, up to ±" },
  height: { value: 5, min: -6, max: 6, step: 0.5, digits: 1, label: "New pulse height" },
};

const SEED = { value: 1, min: 1, max: 9999 };
const STEP = { value: 0, min: 0, max: STEPS - 1 };

/** A state; pulses are pairs [step, height]. */
export function state({ parameters = {}, pulses = [], ...inputs } = {}) {
  const values = (ranges) => Object.fromEntries(Object.entries(ranges).map(([name, { value }]) => [name, value]));
  return { parameters: { ...values(PARAMETERS), ...parameters }, pulses, seed: SEED.value, step: STEP.value,
    ...values(INPUTS), ...inputs };
}

const RESONANT = { alpha: 0.95, omega: 0.52 };

/** Weak pulses from step 20 on. */
function beat(period) {
  const pulses = [];
  for (let step = 20; step < STEPS; step += period) pulses.push([step, 0.5]);
  return pulses;
}

export const PRESETS = [
  { name: "At rest", state: state(),
    says: "There is no input, and nothing changes: h and hs stay at −0.903, and the output is 0." },
  { name: "One spike", state: state({ pulses: [[20, 5]] }),
    says: "One pulse raises the drive. The neuron fires once, for two steps, and returns to rest." },
  { name: "Refractory", state: state({ pulses: [[20, 5], [24, 5], [70, 5]] }),
    says: "The second pulse comes 4 steps after the first and is lost. The third, 50 steps after the first, makes "
      + "the neuron fire again." },
  { name: "Steady firing", state: state({ drive: 0.2 }),
    says: "Under a steady current of 0.2 the neuron keeps firing, from its second spike on every 24 steps." },
  { name: "Spontaneous", state: state({ parameters: { bias: -4 } }),
    says: "At a bias of −4 the resting state is unstable: without any input the neuron fires every 22 or 24 "
      + "steps." },
  { name: "Bistable",
    state: state({ parameters: { bias: -2, r: 4, rs: -2 }, drive: 0.22, pulses: [[60, 2], [150, -2]] }),
    says: "Two stable states under one steady current: a pulse takes h from −0.97 up to 0.94, where it stays until a "
      + "negative pulse takes it down." },
  { name: "Silent or firing",
    state: state({ parameters: { bias: -3, r: 3, rs: -2, zs_hyp: 0.5 }, drive: 0.46, pulses: [[40, 3], [160, -3]] }),
    says: "Under the same steady current the neuron stays silent or keeps firing: a pulse starts the spikes, a "
      + "negative pulse stops them." },
  { name: "Resonance", state: state({ parameters: RESONANT, pulses: beat(12) }),
    says: "Weak pulses every 12 steps, which is how long a turn of this neuron's integrator takes (omega = 0.52). It "
      + "swings higher with each pulse, and the fourth makes the neuron fire." },
  { name: "Off beat", state: state({ parameters: RESONANT, pulses: beat(18) }),
    says: "The same neuron and the same pulses, now every 18 steps: each comes when the integrator has turned against "
      + "it, and the neuron stays silent. Without resonance it is silent at both rhythms." },
  { name: "Noise", state: state({ drive: 0.12, noise: 0.3, seed: 1 }),
    says: "The steady current alone is too weak for a spike. With noise the neuron fires now and then, irregularly." },
];

export const FIRST = PRESETS[2];

/** The preset that equals a state except for the time cursor and the settings of later pulses, or undefined. */
export function presetOf(now) {
  const text = ({ step, height, seed, ...others }) =>
    JSON.stringify([Object.entries(others).sort(), others.noise > 0 && seed]);
  return PRESETS.find((preset) => text(preset.state) === text(now));
}

/** The synaptic current of each step, rounded to float32 as the runtime takes it. */
export function currentOf({ drive, noise, seed, pulses }) {
  const random = uniform(seed), heights = new Map(pulses);
  return Array.from({ length: STEPS }, (_, t) => Math.fround(drive + noise * random() + (heights.get(t) ?? 0)));
}

/** Numbers in [-1, 1) from a seed: mulberry32. */
function uniform(seed) {
  let word = seed;
  return () => {
    word = (word + 0x6d2b79f5) | 0;
    let mixed = Math.imul(word ^ (word >>> 15), word | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 31 - 1;
  };
}

/** The pulses with one more, or with one less if there is already a pulse at that step. */
export function toggled(pulses, step, height) {
  const others = pulses.filter(([at]) => at !== step);
  if (others.length < pulses.length || height === 0) return others;
  return [...others, [step, height]].sort((a, b) => a[0] - b[0]);
}

/** The state as { name: text } for a link. */
export function toLink({ parameters, pulses, ...inputs }) {
  const texts = Object.entries({ ...parameters, ...inputs }).map(([name, value]) => [name, String(value)]);
  return { ...Object.fromEntries(texts), pulses: pulses.map((pulse) => pulse.join(":")).join(",") };
}

/** Whether a link has a state, and not a place of the page. */
export function inLink(link) {
  return [...Object.keys(PARAMETERS), ...Object.keys(INPUTS), "pulses"].some((name) => name in link);
}

/** The state in a link's { name: text }. What is missing, not finite or out of range stays at its default; the rest is
    rounded as by the sliders. */
export function fromLink(link) {
  const read = (ranges, whole = false) => Object.fromEntries(Object.entries(ranges)
    .filter(([name, range]) => allowed(link[name], range, whole))
    .map(([name, range]) => [name, rounded(link[name], range)]));
  const pulses = (link.pulses ?? "").split(",").map((pulse) => pulse.split(":"))
    .filter(([step, height]) => allowed(step, STEP, true) && allowed(height, INPUTS.height) && Number(height) !== 0);
  const heights = new Map(pulses.map((pulse) => pulse.map(Number)));
  return state({ parameters: read(PARAMETERS), ...read(INPUTS), ...read({ seed: SEED, step: STEP }, true),
    pulses: [...heights].sort((a, b) => a[0] - b[0]) });
}

function allowed(text, { min, max }, whole = false) {
  const value = Number(text);
  return Boolean(text?.trim()) && value >= min && value <= max && (!whole || Number.isInteger(value));
}

function rounded(text, { min, step = 1, digits = 0 }) {
  return Number((min + step * Math.round((Number(text) - min) / step)).toFixed(digits));
}

/** The seed after this one. */
export function nextSeed(seed) {
  return seed % SEED.max + 1;
}
