/* The page "Say a digit": it hears the microphone, a file or a synthesised voice, and shows a network's answer while a
   word lasts. The runtime computes everything that the pictures show; the page must know nothing about how a neuron
   or the cochlea works. */
import { announcer, button, calm, html, mount } from "./controls.js";
import { microphone, played, samplesOf } from "./sound-audio.js";
import { Listener, NAMES } from "./sound-listener.js";
import { Teacher } from "./sound-teach.js";
import { bandsView, guessOf, isSure, probabilitiesView, rasterView, saidOf, shownOf, votesView } from "./sound-views.js";
import { speak } from "./sound-voice.js";
import { fetched, load } from "./srcell.js";

const SECONDS = 3; // shown
const PAUSE = 0.4, PAUSE_AT_FIRST = 0.3; // seconds of silence before and after a sound that is played
const SETTLE = 0.5; // seconds of the microphone in which only the level of the noise is measured
const FIRST = [4, 2, 7]; // the digits that the voice has said when the page opens: they fill the pictures
const HISTORY = 12; // answers

mount(async () => {
  const at = (file) => new URL(`./${file}`, import.meta.url);
  const [runtime, bytes] = await Promise.all([load(at("srcell.wasm")), fetched(at("digits.srcell"))]);
  return new Page(new Listener(runtime, bytes, SECONDS), new Uint8Array(bytes)).elements;
});

class Page {
  constructor(listener, bytes) {
    Object.assign(this, { listener, stop: null, asked: false, calls: 0 });
    const { network, bands, encoder } = listener;
    this.views = [votesView(), bandsView(bands, [encoder.lowest, encoder.highest]), rasterView(network.outputs),
      probabilitiesView()];
    this.digit = html("strong", { class: "sound-digit" }, "?");
    this.words = html("p", { class: "sound-words" });
    this.status = announcer();
    this.cost = html("p", { class: "sound-small" });
    this.history = html("ol", { class: "sound-history", "aria-label": "The last answers, the latest first" });
    this.listenButton = button("Listen", () => this.stop ? (this.halt(), this.tell("Stopped.")) : this.listen());
    this.file = html("input", { type: "file", accept: "audio/*,.wav", class: "play-hidden", "aria-label": "Sound file",
      onchange: () => this.open(), tabindex: "-1" });
    this.teacher = new Teacher(this, bytes);
    document.addEventListener("visibilitychange", () => this.ask());
    window.play = { page: this, runtime: listener.runtime, listener, result: listener.words };
    for (const digit of FIRST) this.hear(this.padded(speak(digit, listener.rate), PAUSE_AT_FIRST));
    this.halt();
    const said = FIRST.map((digit) => NAMES[digit]).join(", ");
    this.tell(`The synthesised voice said ${said}. Press Listen and say a digit.`);
  }

  get elements() {
    const [votes, ...others] = this.views.map(({ element }) => element);
    const digits = NAMES.slice(0, 10).map((name, digit) => {
      const made = button(String(digit), () => this.play(speak(digit, this.listener.rate), `The voice says ${name}.`));
      made.setAttribute("aria-label", `Let the voice say ${name}`);
      return made;
    });
    return [
      html("div", { class: "play-row" }, this.listenButton,
        button("Open a sound file", () => this.file.click(), { title: "WAV, or another format of the browser" }),
        this.file),
      html("div", { class: "play-row sound-voice", role: "group", "aria-label": "Synthesised voice" },
        html("span", { class: "sound-wide" }, "Synthesised voice:"), ...digits),
      this.status,
      html("div", { class: "sound-answer" }, html("div", {}, this.digit, this.words, this.cost), votes),
      html("h2", {}, "Answers"), this.history, ...this.teacher.elements, ...others,
    ];
  }

  /** Hears with another network from now on. */
  use(bytes) {
    this.listener.use(bytes);
    this.draw();
  }

  /** Hears the microphone until it is stopped. */
  async listen() {
    this.halt();
    const call = ++this.calls;
    this.tell("Waiting for the microphone\u2026");
    try {
      const release = await microphone(this.listener.rate, (samples) => call === this.calls && this.hear(samples),
        () => call === this.calls && (this.halt(), this.tell("The microphone is gone.")));
      if (call !== this.calls) return release();
      this.listener.clear(SETTLE);
      this.begin(release);
      this.tell("Listening.");
    } catch (error) {
      if (call !== this.calls) return;
      this.tell(`The microphone cannot be used: ${error.message} A sound file or the voice needs none.`);
    }
  }

  async open() {
    const [file] = this.file.files;
    this.file.value = "";
    if (!file) return;
    this.halt();
    const call = ++this.calls;
    try {
      const samples = await samplesOf(await file.arrayBuffer(), this.listener.rate);
      if (call === this.calls) this.play(samples, `Playing ${file.name}.`, this.listener.noiseOf(samples));
    } catch (error) {
      const words = `${file.name}: the browser cannot read this file as a sound (${error.message}).`;
      if (call === this.calls) this.tell(words);
    }
  }

  /** Plays a sound, whose noise has at least that level, and hears it. */
  play(samples, words, noise) {
    this.halt();
    const call = ++this.calls, end = () => call === this.calls && this.halt();
    this.listener.clear(0, noise);
    this.begin(played(this.padded(samples), this.listener.rate, (part) => this.hear(part), end));
    this.tell(words);
  }

  /** The samples with silence before and after them. */
  padded(samples, pause = PAUSE) {
    const quiet = Math.round(pause * this.listener.rate), whole = new Float32Array(samples.length + 2 * quiet);
    whole.set(samples, quiet);
    return whole;
  }

  begin(stop) {
    this.stop = stop;
    this.listenButton.textContent = "Stop";
  }

  halt() {
    ++this.calls;
    this.stop?.();
    this.stop = null;
    this.listenButton.textContent = "Listen";
    if (this.listener.stop()) this.note();
    this.draw();
  }

  hear(samples) {
    if (this.listener.hear(samples)) this.note(true);
    this.ask();
  }

  /** Shows the last word's answer in the status and in the history, unless a lesson takes a word that `ended` by itself. */
  note(ended = false) {
    const word = this.listener.words.at(-1), p = word.probabilities[word.answer].toFixed(2);
    if (ended && this.teacher.heard(word)) return calm() && this.draw();
    this.tell(`${isSure(word) ? "The answer is" : "Not sure:"} ${saidOf(word)}.`);
    this.history.prepend(html("li", {}, html("strong", {}, guessOf(word)), ` ${p}`));
    this.history.children[HISTORY]?.remove();
    if (calm()) this.draw();
  }

  tell(words) {
    this.status.textContent = words;
  }

  /** Draws in the next frame of the browser, unless the page is hidden or the user asked for less motion. */
  ask() {
    if (this.asked || document.hidden || calm()) return;
    this.asked = true;
    requestAnimationFrame(() => (this.asked = false, this.draw()));
  }

  draw() {
    const shown = shownOf(this.listener), { word, lasts } = shown, { heard, milliseconds } = this.listener;
    this.digit.textContent = word ? guessOf(word) : "?";
    this.digit.dataset.long = this.digit.textContent.length > 4;
    this.digit.dataset.lasts = lasts;
    this.words.textContent = word ? saidOf(word) + (isSure(word) ? "" : ", not sure") : "nothing heard yet";
    this.cost.textContent = `Computed in ${(milliseconds / heard / 10).toFixed(1)} % of the time of the sound.`;
    for (const each of this.views) each.draw(shown);
  }
}
