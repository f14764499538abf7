/* A control loop in node: it feeds a sensor's active channels into a network step by
   step, and every 20 steps it prints the class with the largest logit. In a browser use
   `await load("srcell.wasm")` and a network file that was fetched.

       node control.mjs srcell.js srcell.wasm net.srcell < steps

   Each line of the input lists the channels that are active in one step, by number. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { createInterface } from "node:readline";

if (process.argv.length !== 5) {
  console.error("usage: node control.mjs srcell.js srcell.wasm net.srcell < steps");
  process.exit(2);
}
const [script, module, file] = process.argv.slice(2);
const { load } = await import(resolve(script));
const runtime = await load(await readFile(module));
const network = runtime.network(await readFile(file));
const stream = network.stream();

let step = 0;
for await (const line of createInterface({ input: process.stdin })) {
  stream.step(line.split(" ").filter(Boolean).map(Number));
  if (++step % 20) continue;
  const logits = stream.logits(), best = logits.indexOf(Math.max(...logits));
  console.log(`step ${step}: class ${best}, logit ${logits[best].toPrecision(6)}`);
}
