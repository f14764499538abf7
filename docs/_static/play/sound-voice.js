/* Speaks digits: a formant synthesiser, which is a buzz (the voice) and a hiss through resonances that move. It must
   know nothing about a network. */

/* Phonemes: the voice's amplitude, the hiss's, the frequency around which it hisses, and three formants, in Hz. A hiss
   at 0 Hz goes through the formants. */
const PHONEMES = {
  "": [0, 0, 0, 500, 1500, 2500],
  z: [0.25, 0.25, 3500, 280, 1700, 2500], s: [0, 0.2, 3700, 320, 1600, 2550], th: [0, 0.12, 3400, 320, 1290, 2540],
  f: [0, 0.08, 2300, 340, 1100, 2080], v: [0.3, 0.04, 2300, 220, 1100, 2080], t: [0, 0.5, 3200, 400, 1700, 2600],
  k: [0, 0.4, 1900, 350, 1900, 2600], h: [0, 0.15, 0, 330, 1500, 2300], n: [0.35, 0, 0, 260, 1400, 2500],
  w: [0.5, 0, 0, 290, 620, 2150], r: [0.6, 0, 0, 320, 1060, 1400], R: [0.7, 0, 0, 450, 1200, 1600],
  i: [0.8, 0, 0, 290, 2250, 2950], I: [0.9, 0, 0, 400, 1950, 2550], e: [1, 0, 0, 530, 1800, 2480],
  E: [1, 0, 0, 470, 2000, 2550], a: [1, 0, 0, 730, 1200, 2440], A: [1, 0, 0, 640, 1190, 2390],
  o: [1, 0, 0, 540, 900, 2400], O: [1, 0, 0, 570, 840, 2410], u: [0.8, 0, 0, 310, 900, 2240],
  U: [0.8, 0, 0, 340, 1500, 2240], "@": [0.8, 0, 0, 500, 1350, 2500],
};
/* Each digit as phonemes with their milliseconds. */
const DIGITS = [
  "z 90 I 80 r 70 o 110 u 110", "w 80 A 150 n 130", " 20 t 30 h 40 U 70 u 170", "th 80 r 60 I 40 i 180",
  "f 110 O 140 R 140", "f 130 a 200 I 60 v 80", "s 130 I 100  60 k 30 s 140", "s 120 e 90 v 60 @ 70 n 110",
  "E 120 i 70  60 t 40", "n 120 a 100 I 100 n 140",
];
const PITCH = 120; // Hz, on the whole
const GLIDE = 0.03; // seconds in which a phoneme becomes the next
const PEAK = 0.3; // of the samples
const WIDTHS = [70, 100, 150, 250], TOP = 3400; // of the formants, and the fourth formant, Hz

/** The samples of a digit. */
export function speak(digit, rate) {
  const parts = phonemesOf(digit), seconds = parts.at(-1).end, count = Math.round(seconds * rate);
  const resonances = [...WIDTHS, 0].map(() => new Resonance()), draw = draws(), made = new Float32Array(count);
  let phase = 0, glottis = 0;
  for (let k = 0; k < count; ++k) {
    const time = k / rate, [voice, hiss, around, ...formants] = at(parts, time), noise = draw();
    phase += PITCH * (1.15 - 0.3 * time / seconds) / rate;
    const pulse = phase >= 1 ? 1 : 0;
    phase %= 1;
    glottis += 0.18 * (pulse - glottis); // falls by 6 dB in each octave
    let sound = voice * glottis + (around ? 0 : hiss * 0.1 * noise);
    [...formants, TOP].forEach((formant, n) => {
      sound = resonances[n].next(sound, formant, WIDTHS[n], rate);
    });
    if (around) sound += resonances[4].next(0.25 * hiss * noise, around, 1000, rate);
    made[k] = sound * Math.min(1, time / 0.01, (seconds - time) / 0.03);
  }
  const most = made.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0);
  return made.map((sample) => PEAK * sample / most);
}

function phonemesOf(digit) {
  let end = 0;
  return [...DIGITS[digit].matchAll(/([^\s\d]*) (\d+) ?/g)].map(([, name, milliseconds]) => {
    const begin = end;
    end += milliseconds / 1000;
    return { numbers: PHONEMES[name], begin, end };
  });
}

/** The numbers at a time: a phoneme's, or between those of two neighbours near their border. */
function at(parts, time) {
  const n = parts.findIndex((part) => time < part.end), near = n < 0 ? parts.length - 1 : n, part = parts[near];
  const late = time - part.begin < GLIDE / 2 && near > 0 ? near - 1 : near, next = parts[late + 1];
  if (!next || time < next.begin - GLIDE / 2) return part.numbers;
  const share = (time - next.begin) / GLIDE + 0.5, [from, to] = [parts[late].numbers, next.numbers];
  return from.map((number, k) => k === 2 ? (share < 0.5 ? number : to[k]) : number + share * (to[k] - number));
}

/** A resonance of gain 1 at 0 Hz. */
class Resonance {
  last = 0;
  before = 0;

  next(sample, frequency, width, rate) {
    const decay = Math.exp(-Math.PI * width / rate), b = 2 * decay * Math.cos(2 * Math.PI * frequency / rate);
    const c = -decay * decay, now = (1 - b - c) * sample + b * this.last + c * this.before;
    [this.before, this.last] = [this.last, now];
    return now;
  }
}

/** Numbers in [-1, 1), the same at each call of the page. */
export function draws() {
  let state = 1;
  return () => {
    state = Math.imul(state, 1664525) + 1013904223 | 0;
    return state / 2 ** 31;
  };
}
