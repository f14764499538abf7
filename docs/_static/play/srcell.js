/* srcell's runtime in JavaScript: the functions of csrc/runtime/srcell.h, compiled to WebAssembly, on typed arrays. For
   browsers and node; must know nothing about a page. Sizes are named as in srcell.h: T steps, B samples, K inputs, N
   neurons of the last layer, C classes.

   An error of the runtime is thrown as an Error with its text. The memory of a call that failed is lost. */

const OK = 0;
const MOST = 2 ** 31; // bytes of an array

/** Loads the runtime from the bytes of srcell.wasm, or from the address to fetch them from. */
export async function load(source) {
  const bytes = source instanceof ArrayBuffer || ArrayBuffer.isView(source) ? source : await fetched(source);
  let runtime;
  const system = {
    environ_sizes_get: (count, size) => (runtime.write(Int32Array, count, [0]), runtime.write(Int32Array, size, [0]), OK),
    environ_get: () => OK,
    fd_close: () => OK,
    fd_seek: () => OK,
    fd_write: () => 8, // the standard library's last words before it aborts; there is no file for them
    proc_exit: (code) => { throw new Error(`the runtime gave up with code ${code}`); },
  };
  const refuse = (text) => {
    const said = runtime.text(text);
    throw new Error(said === "std::bad_alloc" ? "no memory left" : said);
  };
  const { instance } = await WebAssembly.instantiate(bytes, { wasi_snapshot_preview1: system, srcell: { refuse } });
  runtime = new Runtime(instance.exports);
  instance.exports._initialize();
  return runtime;
}

/** The bytes at a URL. */
export async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
}

/** Events: row b * T + t holds those of sample b at step t, indices[offsets[row]] up to indices[offsets[row + 1]]. */
export class Events {
  constructor(steps, batch, offsets, indices, values = null) {
    Object.assign(this, { steps, batch, offsets, indices, values });
  }

  /** Events from a list of rows, each a list of active inputs. */
  static of(rows, batch = 1) {
    const offsets = [0];
    for (const row of rows) offsets.push(offsets.at(-1) + row.length);
    return new Events(rows.length / batch, batch, Int32Array.from(offsets), Int32Array.from(rows.flat()));
  }

  /** The active inputs of a step. */
  row(step, sample = 0) {
    const row = sample * this.steps + step;
    return this.indices.slice(this.offsets[row], this.offsets[row + 1]);
  }
}

class Runtime {
  constructor(exports) {
    this.exports = exports;
  }

  get version() {
    return this.text(this.exports.srcell_version());
  }

  /** Loads a network from the bytes of a file that `srcell export` wrote. */
  network(bytes) {
    const given = bytes instanceof ArrayBuffer ? new Uint8Array(bytes) : bytes;
    return this.scratch((scratch) => {
      const place = scratch.room(4);
      this.call("srcell_network_read", scratch.put(Uint8Array, given), given.length, place);
      return new Network(this, this.read(Uint32Array, place, 1)[0]);
    });
  }

  /** Encodes images (B * K pixels in [0, 1]) as events; the settings are those of a network's encoder, plus `seed` and
      `index`. */
  encodeRate(images, inputs, { steps, prefix = 0, gain = 1, thinned = false, seed = 0, index = null }) {
    const batch = images.length / inputs;
    whole("images: their number", batch);
    whole("steps", steps);
    whole("prefix", prefix);
    if (index) expect("index", index.length, batch);
    return this.scratch((scratch) => {
      const settings = scratch.room(40), view = new DataView(this.exports.memory.buffer, settings, 40);
      view.setBigInt64(0, BigInt(steps), true);
      view.setBigInt64(8, BigInt(prefix), true);
      view.setFloat64(16, gain, true);
      view.setInt32(24, thinned ? 1 : 0, true);
      view.setBigUint64(32, BigInt.asUintN(64, BigInt(seed)), true);
      const active = images.reduce((sum, pixel) => sum + (pixel > 0), 0);
      const sizes = [batch, inputs], room = active * steps;
      return this.encoded("srcell_encode_rate", settings, sizes, images, index, prefix + steps, room, scratch);
    });
  }

  /** Encodes pictures (B * height * width pixels in [0, 1]) as the events of a moving camera; the settings are those of a
      network's encoder, plus `seed` and `index`. */
  encodeCamera(pictures, height, width, encoder) {
    const { steps, sensor_size: size, movement, threshold, seed = 0, index = null } = encoder;
    const batch = pictures.length / (height * width);
    whole("pictures: their number", batch);
    whole("steps", steps);
    if (index) expect("index", index.length, batch);
    return this.scratch((scratch) => {
      const points = scratch.put(Float64Array, movement.flat());
      const settings = scratch.room(112), view = new DataView(this.exports.memory.buffer, settings, 112);
      const [rise, fall] = [threshold, threshold].flat(2).slice(0, 2);
      [steps, ...size].forEach((x, k) => view.setBigInt64(8 * k, BigInt(x), true));
      [rise, fall, encoder.spread].forEach((x, k) => view.setFloat64(24 + 8 * k, x, true));
      view.setBigInt64(48, BigInt(encoder.refractory), true);
      const { noise, blur, size_jitter: sizes, place_jitter: places } = encoder;
      [noise, blur, sizes, places].forEach((x, k) => view.setFloat64(56 + 8 * k, x, true));
      view.setUint32(88, points, true);
      view.setBigInt64(96, BigInt(movement.length), true);
      view.setBigUint64(104, BigInt.asUintN(64, BigInt(seed)), true);
      const room = batch * steps * 2 * size[0] * size[1];
      return this.encoded("srcell_encode_camera", settings, [batch, height, width], pictures, index, steps, room, scratch);
    });
  }

  /** The events that an encoder in C writes, of which there are at most `room`. */
  encoded(name, settings, sizes, images, index, steps, room, scratch) {
    const [batch] = sizes, rows = batch * steps;
    const pixels = scratch.put(Float32Array, images), numbers = index && scratch.put(BigInt64Array, BigInt64Array.from(index, BigInt));
    const offsets = scratch.room(8 * (rows + 1)), indices = scratch.room(4 * room);
    this.call(name, settings, ...sizes.map(BigInt), pixels, numbers ?? 0, offsets, indices, BigInt(room));
    const ends = Int32Array.from(this.read(BigInt64Array, offsets, rows + 1), Number);
    return new Events(steps, batch, ends, this.read(Int32Array, indices, ends.at(-1)));
  }

  /** Calls a function; restores the stack if it throws. */
  call(name, ...given) {
    const stack = this.exports.__stack_pointer.value;
    try {
      return this.exports[name](...given);
    } catch (error) {
      this.exports.__stack_pointer.value = stack;
      throw error;
    }
  }

  /** Runs `use` with memory that is freed afterwards. */
  scratch(use) {
    const scratch = new Scratch(this);
    try {
      return use(scratch);
    } finally {
      scratch.free();
    }
  }

  /** A copy of an array in the runtime's memory. */
  read(Type, address, count) {
    return new Type(this.exports.memory.buffer, address, count).slice();
  }

  write(Type, address, values) {
    new Type(this.exports.memory.buffer, address, values.length).set(values);
  }

  /** A C string as text, or null. */
  text(address) {
    if (!address) return null;
    const bytes = new Uint8Array(this.exports.memory.buffer, address);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  }
}

class Scratch {
  constructor(runtime) {
    this.runtime = runtime;
    this.addresses = [];
  }

  room(bytes) {
    if (!(bytes < MOST)) throw new Error("no memory left"); // a size in C wraps around at twice this size
    const address = this.runtime.exports.malloc(Math.max(bytes, 8));
    if (!address) throw new Error("no memory left");
    this.addresses.push(address);
    return address;
  }

  put(Type, values) {
    const address = this.room(values.length * Type.BYTES_PER_ELEMENT);
    this.runtime.write(Type, address, values);
    return address;
  }

  /** The addresses of the three arrays of events. */
  events({ offsets, indices, values }) {
    expect("indices", indices.length, Number(offsets.at(-1)));
    if (values) expect("values", values.length, indices.length);
    if (!indices.every(Number.isInteger)) throw new Error("indices: expected whole numbers");
    const ends = this.put(BigInt64Array, BigInt64Array.from(offsets, BigInt));
    return [ends, this.put(Int32Array, indices), values ? this.put(Float32Array, values) : 0];
  }

  free() {
    for (const address of this.addresses) this.runtime.exports.free(address);
  }
}

class Network {
  constructor(runtime, handle) {
    const size = (name, ...given) => Number(runtime.exports[`srcell_network_${name}`](handle, ...given));
    Object.assign(this, { runtime, handle, inputs: size("inputs"), outputs: size("outputs"), classes: size("classes") });
    this.layers = Array.from({ length: size("layers") }, (_, layer) => size("neurons", BigInt(layer)));
    this.resonant = this.layers.map((_, layer) => size("resonates", BigInt(layer)) === 1);
    this.delays = this.layers.map((_, layer) => size("delay", BigInt(layer)));
  }

  /** The file's text of that name, or null. The encoder's text is JSON. */
  text(name) {
    return this.runtime.scratch((scratch) => {
      const given = scratch.put(Uint8Array, new TextEncoder().encode(`${name}\0`));
      return this.runtime.text(this.runtime.call("srcell_network_text", this.handle, given));
    });
  }

  /** The names of the classes, or null if the file has none. */
  get classNames() {
    const name = (_, label) => this.runtime.text(this.runtime.call("srcell_network_class_name", this.handle, BigInt(label)));
    const names = Array.from({ length: this.classes }, name);
    return !names.length || names.includes(null) ? null : names;
  }

  /** Encodes images (B * K pixels in [0, 1]) as events, with the encoder of the exported network; if that is a
      HeldEncoding, `batch` sequences of real values (B * S * K); if it is a CameraEncoding, pictures (B * height * width)
      of [height, width] `pixels`. */
  encode(images, { seed = 0, index = null, batch = 1, pixels = [28, 28] } = {}) {
    const settings = JSON.parse(this.text("encoder") ?? "{}");
    if (settings.name === "CameraEncoding") return this.runtime.encodeCamera(images, ...pixels, { ...settings, seed, index });
    if (settings.name === "HeldEncoding") return heldEvents(images, this.inputs, batch, settings);
    if (settings.name !== "RateEncoding") throw new Error(`encoder: expected RateEncoding, got ${settings.name}`);
    return this.runtime.encodeRate(images, this.inputs, { ...settings, seed, index });
  }

  /** The logits (B * C) and the last layer's spikes (T * B * N) for events; lengths are the samples' numbers of steps,
      or null. */
  run(events, lengths = null) {
    const { runtime } = this, { steps, batch } = events;
    expect("events.offsets", events.offsets.length, steps * batch + 1);
    if (lengths) expect("lengths", lengths.length, batch);
    const classes = batch * this.classes, count = steps * batch * this.outputs;
    return runtime.scratch((scratch) => {
      const given = scratch.events(events), logits = scratch.room(4 * classes), spikes = scratch.room(4 * count);
      const ends = lengths ? scratch.put(BigInt64Array, BigInt64Array.from(lengths, BigInt)) : 0;
      runtime.call("srcell_network_run", this.handle, BigInt(steps), BigInt(batch), ...given, ends, logits, spikes, 1);
      const read = (address, length) => runtime.read(Float32Array, address, length);
      return { logits: read(logits, classes), spikes: read(spikes, count) };
    });
  }

  /** Creates a stream that advances `batch` samples side by side. */
  stream(batch = 1) {
    return this.runtime.scratch((scratch) => {
      const place = scratch.room(4);
      this.runtime.call("srcell_stream_new", this.handle, BigInt(batch), place);
      return new Stream(this, this.runtime.read(Uint32Array, place, 1)[0], batch);
    });
  }

  /** The bytes of the network's file. */
  bytes() {
    const { runtime } = this, size = runtime.exports.srcell_network_size(this.handle);
    return runtime.scratch((scratch) => {
      const place = scratch.room(size);
      runtime.call("srcell_network_bytes", this.handle, place, size);
      return runtime.read(Uint8Array, place, size);
    });
  }

  /** Creates a learner, which starts from this network's weights; the network itself never changes. `layers` is "all", or
      "readout" alone; `classes` are names of other classes, whose readout replaces the network's. */
  learner({ learningRate = 1e-3, clipNorm = 1, layers = "all", classes = null } = {}) {
    if (layers !== "all" && layers !== "readout") throw new Error(`layers: expected all or readout, got ${layers}`);
    if (classes && !classes.length) throw new Error("classes: expected at least one name");
    return this.runtime.scratch((scratch) => {
      const names = (classes ?? []).map((name) => scratch.put(Uint8Array, new TextEncoder().encode(`${name}\0`)));
      const settings = scratch.room(40), place = scratch.room(4), list = scratch.put(Uint32Array, names);
      const view = new DataView(this.runtime.exports.memory.buffer, settings, 40);
      view.setFloat64(0, learningRate, true);
      view.setFloat64(8, clipNorm, true);
      view.setInt32(16, layers === "readout" ? 1 : 0, true);
      view.setBigInt64(24, BigInt(names.length), true);
      view.setUint32(32, names.length ? list : 0, true);
      this.runtime.call("srcell_learner_new", this.handle, settings, place);
      return new Learner(this, this.runtime.read(Uint32Array, place, 1)[0], names.length || this.classes);
    });
  }

  /** Frees the network; its streams must be freed before. */
  free() {
    this.runtime.exports.srcell_network_free(this.handle);
  }
}

class Stream {
  constructor(network, handle, batch) {
    Object.assign(this, { network, runtime: network.runtime, handle, batch });
  }

  /** Advances one step with these active inputs, all of value 1 if `values` is null; for a stream of one sample. */
  step(indices, values = null) {
    this.rows([0, indices.length], indices, values);
  }

  /** Advances one step; sample b has the events offsets[b] to offsets[b + 1]. */
  rows(offsets, indices, values = null) {
    expect("offsets", offsets.length, this.batch + 1);
    this.runtime.scratch((scratch) =>
      this.runtime.call("srcell_stream_step_rows", this.handle, ...scratch.events({ offsets, indices, values })));
  }

  /** Advances one step with a dense input (B * K). */
  dense(input) {
    expect("input", input.length, this.batch * this.network.inputs);
    this.runtime.scratch((scratch) =>
      this.runtime.call("srcell_stream_step_dense", this.handle, scratch.put(Float32Array, input)));
  }

  /** Takes the next element (B * K values) of real-valued sequences, for as many steps as the network's HeldEncoding
      says, or for one step if it has no encoder; returns the number of steps. */
  feed(values) {
    expect("values", values.length, this.batch * this.network.inputs);
    return this.runtime.scratch((scratch) => {
      const steps = scratch.room(8);
      this.runtime.call("srcell_stream_feed", this.handle, scratch.put(Float32Array, values), steps);
      return Number(this.runtime.read(BigInt64Array, steps, 1)[0]);
    });
  }

  /** Hears samples of a sound, of a network with a SoundEncoding; returns the number of steps that they completed. */
  hear(samples) {
    return this.runtime.scratch((scratch) => {
      const steps = scratch.room(8);
      this.runtime.call("srcell_stream_hear", this.handle, scratch.put(Float32Array, samples), BigInt(samples.length), steps);
      return Number(this.runtime.read(BigInt64Array, steps, 1)[0]);
    });
  }

  /** The last layer's spikes (B * N) in the last step. */
  spikes() {
    return this.runtime.read(Float32Array, this.runtime.exports.srcell_stream_spikes(this.handle),
      this.batch * this.network.outputs);
  }

  /** i, h and hs of a layer's neurons and, if they resonate, q; (B * N) each. */
  values(layer = 0) {
    const count = this.batch * this.network.layers[layer];
    return this.runtime.scratch((scratch) => {
      const place = scratch.room(12 * count);
      this.runtime.call("srcell_stream_values", this.handle, BigInt(layer), place);
      const [i, h, hs] = [0, 1, 2].map((k) => this.runtime.read(Float32Array, place + 4 * k * count, count));
      if (!this.network.resonant[layer]) return { i, h, hs };
      this.runtime.call("srcell_stream_quadrature", this.handle, BigInt(layer), place);
      return { i, h, hs, q: this.runtime.read(Float32Array, place, count) };
    });
  }

  /** The current logits, which the readout computes from all steps so far, (B * C). */
  logits() {
    const count = this.batch * this.network.classes;
    return this.runtime.scratch((scratch) => {
      const place = scratch.room(4 * count);
      this.runtime.call("srcell_stream_logits", this.handle, place);
      return this.runtime.read(Float32Array, place, count);
    });
  }

  /** Returns the stream to its initial state. */
  reset() {
    this.runtime.call("srcell_stream_reset", this.handle);
  }

  free() {
    this.runtime.exports.srcell_stream_free(this.handle);
  }
}

/** A network that learns: by backpropagation and Adam, with the bits of native code. */
class Learner {
  constructor(network, handle, classes) {
    Object.assign(this, { runtime: network.runtime, handle, classes });
  }

  /** Learns from a batch in one step, and returns its loss before that. Targets are labels, an Int32Array, for the
      cross-entropy; or values, a Float32Array (B * C), for the mean squared error. With `everyStep` they are those of every
      step, (B * T) and (B * T * C). Lengths as in `run`. After an error what was learnt is as before. */
  step(events, targets, { lengths = null, everyStep = false } = {}) {
    const { runtime } = this, { steps, batch } = events, labels = !(targets instanceof Float32Array);
    expect("events.offsets", events.offsets.length, steps * batch + 1);
    expect("targets", targets.length, batch * (everyStep ? steps : 1) * (labels ? 1 : this.classes));
    if (lengths) expect("lengths", lengths.length, batch);
    return runtime.scratch((scratch) => {
      const given = scratch.events(events), loss = scratch.room(8), wide = (x) => scratch.put(BigInt64Array, BigInt64Array.from(x, BigInt));
      const wanted = labels ? wide(targets) : scratch.put(Float32Array, targets);
      runtime.call(labels ? "srcell_learner_step" : "srcell_learner_step_values", this.handle, BigInt(steps), BigInt(batch),
        ...given, lengths ? wide(lengths) : 0, wanted, everyStep ? 1 : 0, 1, loss);
      return runtime.read(Float64Array, loss, 1)[0];
    });
  }

  /** What was learnt, as a network of its own. */
  network() {
    return this.runtime.scratch((scratch) => {
      const place = scratch.room(4);
      this.runtime.call("srcell_learner_network", this.handle, place);
      return new Network(this.runtime, this.runtime.read(Uint32Array, place, 1)[0]);
    });
  }

  /** What was learnt and Adam's moments as bytes, for `restore`. */
  save() {
    const size = this.runtime.exports.srcell_learner_state_size(this.handle);
    return this.runtime.scratch((scratch) => {
      const place = scratch.room(size);
      this.runtime.call("srcell_learner_save", this.handle, place, size);
      return this.runtime.read(Uint8Array, place, size);
    });
  }

  /** Goes on from bytes that a learner of the same file, classes and layers saved. */
  restore(state) {
    this.runtime.scratch((scratch) =>
      this.runtime.call("srcell_learner_restore", this.handle, scratch.put(Uint8Array, state), state.length));
  }

  free() {
    this.runtime.exports.srcell_learner_free(this.handle);
  }
}

/** The events of `batch` sequences (B * S * K values): each element for `hold` steps, after `prefix` steps without. */
function heldEvents(values, inputs, batch, { hold, prefix }) {
  const elements = values.length / (batch * inputs), steps = prefix + hold * elements;
  whole("images: the elements of a sequence", elements);
  const offsets = [0], indices = [], graded = [];
  for (let b = 0; b < batch; ++b)
    for (let t = 0; t < steps; ++t) {
      const element = Math.floor((t - prefix) / hold);
      for (let k = 0; element >= 0 && k < inputs; ++k) {
        const value = values[(b * elements + element) * inputs + k];
        if (value !== 0) indices.push(k), graded.push(value);
      }
      offsets.push(indices.length);
    }
  return new Events(steps, batch, Int32Array.from(offsets), Int32Array.from(indices), Float32Array.from(graded));
}

function expect(name, got, count) {
  if (got !== count) throw new Error(`${name}: expected ${count} numbers, got ${got}`);
}

function whole(name, number) {
  if (!Number.isInteger(number) || number < 0) throw new Error(`${name}: expected a whole number, got ${number}`);
}

const PARAMETERS = { bias: -6, alpha: 0.9, rho: 3, r: 2, rs: -7, zs_hyp: 0.9, zs_dep: 0 };

/** The bytes of a network of one neuron whose input is its current, from its parameters and the initial i, h and hs. */
export function neuronFile(parameters = {}, initial = [0, 0, 0]) {
  return layerFile(parameters, initial, 1);
}

/** The same for several neurons, which all get the current; a parameter is one number. Their initial i, h and hs are N
    numbers each. */
export function layerFile(parameters, initial, neurons) {
  const { omega = 0, bias, ...others } = { ...PARAMETERS, ...parameters }, all = (value) => Array(neurons).fill(value);
  const tensors = { "layers.0.weight": [[neurons, 1], all(1)], "layers.0.initial": [[3, neurons], initial],
    "layers.0.bias": [[neurons], all(bias)] };
  for (const [name, value] of Object.entries(omega === 0 ? others : { ...others, omega }))
    tensors[`layers.0.${name}`] = [[1], [value]];
  return tensorFile(tensors, { format: "srcell.network", version: omega === 0 ? "1" : "2", readout: "none" });
}

/** The bytes of a safetensors file: float32 tensors as { name: [shape, numbers] }, and texts. */
export function tensorFile(tensors, texts) {
  const header = { __metadata__: texts }, data = [];
  for (const [name, [shape, numbers]] of Object.entries(tensors)) {
    const begin = 4 * data.length;
    data.push(...numbers);
    header[name] = { dtype: "F32", shape, data_offsets: [begin, 4 * data.length] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + 4 * data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(new Uint8Array(Float32Array.from(data).buffer), 8 + text.length);
  return bytes;
}
