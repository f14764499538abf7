/* The parts "Teach it your voice" and "Words of your own": the page asks for words, a worker learns from the recordings,
   and the network that hears becomes the new one. It must know nothing about the learner's arithmetic. */
import { button, html } from "./controls.js";
import { NONE, answerOf, namesOf } from "./sound-listener.js";
import { VOICE, WORDS, samplesOf, shuffled } from "./sound-learn.js";
import { progressView, trialsView } from "./sound-teach-views.js";
import { saidOf } from "./sound-views.js";

const TRIALS = 10; // words with which a network is tried
const MOST_NAMES = 10, LONGEST_NAME = 20; // words of your own, characters
const VOICE_COUNTS = [1, 3, 5], WORD_COUNTS = [3, 4, 5]; // recordings of each word
const FILE = "mine.srcell";

/** The states are "closed", "form", "asking", "learning", "learnt", "trying", "tried" and "told". A lesson is { names,
    settings, order, at, taken }: the labels in the order in which they are asked for, the next of them, and the
    recordings. */
export class Teacher {
  constructor(page, bytes) {
    Object.assign(this, { page, bytes, earlier: [], state: "closed", lesson: null, worker: null });
    this.openers = { voice: button("Teach it your voice", () => this.open("voice")),
      words: button("Words of your own", () => this.open("words")) };
    this.buttons = {
      try: button(`Try ${TRIALS} words`, () => this.try()),
      back: button("Back to the network before", () => this.back()),
      save: button("Save the network", () => this.save()),
      load: button("Open a network", () => this.load(), { title: "A file that this page saved or srcell adapt wrote" }),
      skip: button("Skip", () => this.skip()),
      undo: button("Undo the last word", () => this.undo()),
      again: button("Start again", () => this.ask(this.lesson)),
      stop: button("Stop", () => this.stop()),
    };
    this.names = html("input", { type: "text", id: "sound-names", autocomplete: "off", placeholder: "tea, coffee, water",
      oninput: () => this.names.setCustomValidity("") });
    this.named = html("p", {}, html("label", { for: "sound-names" }, `Up to ${MOST_NAMES} words, separated by commas`),
      this.names);
    this.count = html("select", { id: "sound-count" });
    this.about = html("p");
    this.form = html("form", { onsubmit: (event) => (event.preventDefault(), this.begin()) }, this.about, this.named,
      html("div", { class: "play-row" }, html("label", { for: "sound-count" }, "Recordings of each word"), this.count,
        html("button", { class: "play-button" }, "Begin")));
    this.said = html("p", { class: "sound-say", role: "status", "aria-live": "polite" });
    this.taken = html("ol", { class: "sound-history", "aria-label": "Your words, and the answers before learning" });
    this.progress = progressView();
    this.progress.draw(null);
    this.trials = trialsView();
    const { load: _, ...others } = this.buttons;
    this.panel = html("section", { class: "sound-panel", "aria-label": "Learning" }, this.form, this.said,
      html("div", { class: "play-row" }, ...Object.values(others)), this.taken, this.progress.element, this.trials.element);
    this.become("closed");
  }

  get elements() {
    const { voice, words } = this.openers;
    return [html("div", { class: "play-row", role: "group", "aria-label": "The network learns" }, voice, words,
      this.buttons.load), this.panel];
  }

  /** Enters a state and shows its controls, words, and the word to say; the focus never stays on a hidden control. */
  become(state, words = "", word = null) {
    this.state = state;
    const { asks } = this, taken = this.lesson?.taken.length, focused = document.activeElement;
    const free = this.earlier.length > 0 && !asks && state !== "learning";
    const { try: trial, back, save, skip, undo, again, stop } = this.buttons;
    const shown = [
      [this.panel, state !== "closed"], [this.form, state === "form"], [this.said, state !== "form"], [skip, asks],
      [undo, asks && taken], [again, state === "asking" && taken], [stop, asks || state === "learning"],
      [this.taken, state === "asking" || state === "learning"], [trial, free], [back, free], [save, free],
      [this.trials.element, state === "trying" || state === "tried"],
      [this.progress.element, state === "learning" || state === "learnt"],
    ];
    for (const [element, visible] of shown) element.hidden = !visible;
    for (const [kind, opener] of Object.entries(this.openers))
      opener.setAttribute("aria-expanded", String(this.kind === kind && state !== "closed"));
    this.said.replaceChildren(...(word ? [html("strong", {}, `Say: ${word}`), " "] : []), words);
    if (focused?.closest("[hidden]"))
      [stop, trial, this.openers[this.kind ?? "voice"]].find((each) => !each.closest("[hidden]")).focus();
  }

  open(kind) {
    const closes = this.kind === kind && this.state !== "closed";
    this.stop();
    this.kind = closes ? null : kind;
    this.lesson = null;
    if (closes) return this.become("closed");
    const voice = kind === "voice", known = this.known.join(", ");
    this.about.textContent = voice
      ? `The page asks for ${known}. The network learns your voice from the recordings. Nothing leaves your browser.`
      : "Say each word a few times. The network then knows these words and no others: any sound gets one of the names. "
        + "Nothing leaves your browser.";
    this.named.hidden = voice;
    const counts = voice ? VOICE_COUNTS : WORD_COUNTS;
    this.count.replaceChildren(...counts.map((count) => html("option", {}, String(count))));
    this.become("form");
    (voice ? this.count : this.names).focus();
  }

  /** The names of the words that the network knows. */
  get known() {
    return this.page.listener.names.filter((name) => name !== NONE);
  }

  /** Takes the form and asks for its words. */
  begin() {
    const voice = this.kind === "voice", given = this.names.value.split(",").map((name) => name.trim()).filter(Boolean);
    const names = voice ? this.page.listener.names : [...new Set(given)];
    if (!voice && (names.length < 2 || names.length > MOST_NAMES || names.some((name) => name.length > LONGEST_NAME))) {
      this.names.setCustomValidity(`Give 2 to ${MOST_NAMES} words of at most ${LONGEST_NAME} characters.`);
      return this.names.reportValidity();
    }
    const { learner, ...others } = voice ? VOICE : WORDS, classes = voice ? null : names;
    const each = names.flatMap((name, label) => name === NONE && voice ? [] : [label]);
    const order = Array.from({ length: Number(this.count.value) }, () => each).flat();
    this.ask({ names, order, settings: { ...others, learner: { ...learner, classes } } });
  }

  /** Asks for the words of a lesson from the first on. */
  ask(lesson) {
    this.lesson = { ...lesson, at: 0, taken: [] };
    this.taken.replaceChildren();
    this.trials.clear();
    this.next();
    this.buttons.skip.focus();
    this.listen();
  }

  /** Opens the microphone unless the page hears already; says here, too, why there is none. */
  async listen() {
    if (!this.page.stop) await this.page.listen();
    if (!this.page.stop && this.asks) this.next(this.page.status.textContent);
  }

  get asks() {
    return this.state === "asking" || this.state === "trying";
  }

  /** Asks for the next word, or learns after the last. */
  next(heard = "") {
    const { names, order, at, taken, settings } = this.lesson, asks = settings ? "asking" : "trying";
    if (at < order.length) return this.become(asks, `${at + 1} of ${order.length}. ${heard}`, names[order[at]]);
    if (!settings) return this.become("tried", this.trials.summary());
    if (taken.length) return this.learn();
    this.lesson = null;
    this.become("form");
  }

  /** Takes a word that the page heard; returns whether the lesson wanted one. */
  heard(word) {
    if (!this.asks) return false;
    const { lesson } = this, label = lesson.order[lesson.at], name = lesson.names[label];
    const samples = Float32Array.from(word.columns.flatMap((column) => [...column.samples]));
    if (this.state === "asking") {
      lesson.taken.push({ at: lesson.at, label, samples, right: word.names[word.answer] === name });
      this.taken.append(html("li", {}, html("strong", {}, name), ` heard as ${saidOf(word)}`));
    } else {
      lesson.taken.push({ at: lesson.at });
      this.trials.add(name, this.answerBefore(samples), word);
    }
    ++lesson.at;
    this.next(`Heard: ${saidOf(word)}.`);
    return true;
  }

  skip() {
    ++this.lesson.at;
    this.next();
  }

  undo() {
    this.lesson.at = this.lesson.taken.pop().at;
    (this.state === "asking" ? this.taken : this.trials.rows).lastChild.remove();
    this.next();
  }

  /** Stops asking; or stops learning, and keeps what was learnt in the passes so far. */
  stop() {
    if (this.state === "learning") return this.finish(true);
    if (!this.asks) return;
    this.page.halt();
    if (this.state === "asking") this.become("form");
    else this.become("tried", this.trials.summary());
  }

  learn() {
    const { taken, settings, names } = this.lesson, { listener } = this.page, classes = settings.learner.classes;
    const samples = samplesOf(taken, classes ? -1 : names.indexOf(NONE), (sound) => listener.currentsOf(sound));
    this.states = [];
    this.lesson.before = classes ? null : taken.filter(({ right }) => right).length;
    this.worker = new Worker(new URL("./sound-learn-worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => data.failed ? this.failed(data.failed) : this.follow(data);
    this.worker.onerror = (event) => this.failed(event.message ?? "its script did not load");
    this.worker.postMessage({ bytes: this.bytes, samples, settings });
    this.become("learning", `Learning from ${taken.length} recordings.`);
    this.progress.draw(null);
  }

  follow(state) {
    this.states.push(state);
    this.progress.draw({ states: this.states, samples: this.lesson.taken.length, before: this.lesson.before });
    if (state.pass === state.passes) this.finish();
  }

  failed(reason) {
    this.worker.terminate();
    this.become("form");
    this.page.tell(`The network did not learn: ${reason}`);
  }

  finish(stopped = false) {
    this.worker.terminate();
    const last = this.states.at(-1), { taken, before } = this.lesson;
    if (!last) return this.become("form");
    this.replace(last.bytes);
    const was = before === null ? "" : ` Before learning: ${before}.`;
    this.become("learnt", `${stopped ? "Stopped" : "Learnt"} after ${last.pass} passes: ${last.right} of ${taken.length} `
      + `recordings right.${was} From now on the page hears with the new network.`);
  }

  /** Lets the page hear with another network, and keeps the one before. */
  replace(bytes) {
    this.page.use(bytes);
    this.earlier.push(this.bytes);
    this.bytes = bytes;
  }

  back() {
    const bytes = this.earlier.pop();
    this.page.use(bytes);
    this.bytes = bytes;
    this.become("told", "The page hears with the network before.");
  }

  /** Asks for words in a random order, and answers each also with the network before. */
  try() {
    const { names } = this.page.listener, before = this.page.listener.runtime.network(this.earlier.at(-1));
    const labels = names.flatMap((name, label) => name === NONE ? [] : [label]), random = () => 2 * Math.random() - 1;
    const many = Array.from({ length: Math.ceil(TRIALS / labels.length) }, () => shuffled(labels, random)).flat();
    this.trials.begin(namesOf(before).join() === names.join());
    before.free();
    this.lesson = { names, order: many.slice(0, TRIALS), at: 0, taken: [] };
    this.next();
    this.buttons.skip.focus();
    this.listen();
  }

  answerBefore(samples) {
    const network = this.page.listener.runtime.network(this.earlier.at(-1)), stream = network.stream();
    stream.hear(samples);
    const answer = answerOf(namesOf(network), stream.logits());
    stream.free();
    network.free();
    return answer;
  }

  save() {
    const address = URL.createObjectURL(new Blob([this.bytes]));
    html("a", { href: address, download: FILE }).click();
    URL.revokeObjectURL(address);
  }

  load() {
    const open = async () => {
      const [file] = input.files;
      try {
        this.replace(new Uint8Array(await file.arrayBuffer()));
        this.become("told", `The page hears with the network of ${file.name}. It knows ${this.known.join(", ")}.`);
      } catch (error) {
        this.page.tell(`${file.name} cannot be used: ${error.message}`);
      }
    };
    const input = html("input", { type: "file", accept: ".srcell", onchange: open });
    this.stop();
    input.click();
  }
}
