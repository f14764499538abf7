/* Gives the lessons of the page "Say a digit" to a network, as the page does: node say_a_digit.mjs SRCELL.wasm < TASK
   TASK is JSON: { network, sounds (files), lengths, labels, kind ("VOICE" or "WORDS"), names, lessons, settings }. The
   sounds are float32 at the network's rate, one after another; names are those of a lesson of words, settings replace
   the page's, and a lesson lists the numbers of its recordings. It prints the shares, in percent, of the other recordings
   that are named right before the lessons (null for words) and after each, and the seconds that each took. */
import { readFile } from "node:fs/promises";
import { stdin } from "node:process";
import { text } from "node:stream/consumers";
import * as lessons from "../docs/_static/play/sound-learn.js";
import { Listener, NONE } from "../docs/_static/play/sound-listener.js";
import { load } from "../docs/_static/play/srcell.js";

const task = JSON.parse(await text(stdin)), voice = task.kind === "VOICE";
const runtime = await load(await readFile(process.argv[2])), bytes = new Uint8Array(await readFile(task.network));
const listener = new Listener(runtime, bytes, 1), currentsOf = (sound) => listener.currentsOf(sound);
const sounds = new Float32Array(new Uint8Array(await readFile(task.sounds)).buffer);
let at = 0;
const words = task.lengths.map((length, k) =>
  ({ samples: sounds.slice(at, at += length), label: task.labels[k] }));
const heard = words.map(({ samples, label }) => ({ currents: currentsOf(samples), label }));
const none = voice ? listener.names.indexOf(NONE) : -1;
const { learner, ...others } = { ...lessons[task.kind], ...task.settings };
const settings = { ...others, learner: { ...learner, ...task.settings?.learner, classes: voice ? null : task.names } };

function share(file, samples) {
  const network = runtime.network(file);
  let right = 0;
  for (let first = 0; first < samples.length; first += 100)
    right += lessons.rightOf(network, samples.slice(first, first + 100));
  network.free();
  return 100 * right / samples.length;
}

const after = task.lessons.map((chosen) => {
  const samples = lessons.samplesOf(chosen.map((k) => words[k]), none, currentsOf), begin = performance.now();
  const last = [...lessons.learning(runtime, bytes, samples, settings)].at(-1);
  const seconds = (performance.now() - begin) / 1000, given = new Set(chosen);
  return { right: share(last.bytes, heard.filter((_, k) => !given.has(k))), seconds };
});
console.log(JSON.stringify({ before: voice ? share(bytes, heard) : null, after }));
