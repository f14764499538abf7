/* Where a sound comes from: the microphone, a file, or samples that are played; and the change of its sampling rate. It
   must know nothing about the page, or about a network. */

const ZEROS = 16; // zero crossings of the low pass on each side
const PASS = 0.45; // its edge, as a share of the lower sampling rate
const USUAL = 48000; // Hz, at which the browser decodes what is no WAV file
const TICK = 20; // milliseconds between the chunks of a sound that is played

/** Changes the sampling rate of a sound that comes in chunks of any lengths: a windowed sinc, one filter for each phase
    that an output sample can have between two input samples. */
export class Resampler {
  constructor(from, to) {
    const common = divisor(from, to), edge = PASS * Math.min(1, to / from);
    Object.assign(this, { up: to / common, down: from / common, half: Math.ceil(ZEROS / (2 * edge)), number: 0 });
    this.phases = Array.from({ length: this.up }, (_, phase) => lowPass(edge, this.half, phase / this.up));
    this.kept = new Float32Array(this.half - 1); // silence before the sound
    this.first = 1 - this.half; // the number of its first sample
  }

  /** The samples at the new rate that these samples complete. */
  take(samples) {
    const held = new Float32Array(this.kept.length + samples.length), made = [];
    held.set(this.kept);
    held.set(samples, this.kept.length);
    for (;; ++this.number) {
      const at = Math.floor(this.number * this.down / this.up), begin = at - this.half + 1 - this.first;
      if (begin + 2 * this.half > held.length) {
        const unused = Math.min(begin, held.length);
        this.kept = held.slice(unused);
        this.first += unused;
        return Float32Array.from(made);
      }
      const filter = this.phases[this.number * this.down % this.up];
      made.push(filter.reduce((sum, weight, k) => sum + weight * held[begin + k], 0));
    }
  }
}

/** Weights of the samples at the distances 1 - half to half from a sample, for an output that is `phase` after it. */
function lowPass(edge, half, phase) {
  const weights = Float64Array.from({ length: 2 * half }, (_, k) => {
    const x = k + 1 - half - phase, angle = 2 * Math.PI * edge * x, window = 0.5 + 0.5 * Math.cos(Math.PI * x / half);
    return (x ? Math.sin(angle) / angle : 1) * window;
  });
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

function divisor(a, b) {
  return b ? divisor(b, a % b) : a;
}

/** Opens the microphone and calls `hear` with samples at `rate`; `lost` is called if it is taken away. Returns a
    function that releases it. */
export async function microphone(rate, hear, lost) {
  if (!navigator.mediaDevices || !globalThis.AudioWorkletNode)
    throw new Error("this browser gives pages no microphone, or none at this address (it must begin with https).");
  const wanted = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: true };
  const media = await navigator.mediaDevices.getUserMedia({ audio: wanted }).catch(refused);
  const context = new AudioContext(), release = () => {
    media.getTracks().forEach((track) => track.stop());
    context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("./sound-worklet.js", import.meta.url));
    const resampler = new Resampler(context.sampleRate, rate), tap = new AudioWorkletNode(context, "sound-tap");
    tap.port.onmessage = ({ data }) => hear(resampler.take(data));
    context.createMediaStreamSource(media).connect(tap).connect(context.destination); // the tap's output is silence
    media.getTracks().forEach((track) => track.addEventListener("ended", lost));
    await context.resume();
  } catch (error) {
    release();
    throw error;
  }
  return release;
}

function refused(error) {
  const reasons = { NotAllowedError: "the browser was not allowed to use it.", NotFoundError: "there is none." };
  throw new Error(reasons[error.name] ?? error.message);
}

/** The samples of a file, such as WAV, at `rate`; channels are averaged. The browser only decodes them: its low pass
    keeps other frequencies than the Resampler, so that the network would hear a file otherwise than the microphone. */
export async function samplesOf(bytes, rate) {
  const own = rateOf(new DataView(bytes)), resampler = new Resampler(own, rate);
  const decoded = await new OfflineAudioContext(1, 1, own).decodeAudioData(bytes), count = decoded.numberOfChannels;
  const made = new Float32Array(decoded.length + (own === rate ? 0 : resampler.half));
  for (let channel = 0; channel < count; ++channel)
    decoded.getChannelData(channel).forEach((sample, at) => { made[at] += sample / count; });
  return own === rate ? made : resampler.take(made);
}

/** The sampling rate that a WAV file gives, if every browser can decode at that rate; USUAL for other files. */
function rateOf(bytes) {
  const wav = bytes.byteLength > 28 && bytes.getUint32(0) === 0x52494646 && bytes.getUint32(12) === 0x666d7420; // RIFF, fmt
  const rate = wav ? bytes.getUint32(24, true) : USUAL;
  return rate >= 8000 && rate <= 96000 ? rate : USUAL;
}

/** Plays samples, and calls `hear` with them as time passes and `end` after the last. Returns a function that stops it,
    to be called once, after the last too. */
export function played(samples, rate, hear, end) {
  const context = new AudioContext(), source = context.createBufferSource(), begin = performance.now();
  source.buffer = context.createBuffer(1, samples.length, rate);
  source.buffer.copyToChannel(samples, 0);
  source.connect(context.destination);
  source.start();
  let at = 0, timer = setTimeout(tick, TICK);
  function tick() {
    const to = Math.min(samples.length, Math.floor((performance.now() - begin) / 1000 * rate));
    hear(samples.subarray(at, to));
    at = to;
    if (at < samples.length) timer = setTimeout(tick, TICK);
    else end();
  }
  return () => {
    clearTimeout(timer);
    context.close();
  };
}
