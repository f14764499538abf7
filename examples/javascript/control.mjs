/* A control loop in node: a sensor's active channels go into a network step by step, and every 20 steps the network says
   which class it sees. In a browser the same code takes `await load("srcell.wasm")` and bytes that were fetched.

       node control.mjs srcell.js srcell.wasm net.srcell < steps

   A line of the input has the numbers of the channels that are active in a step. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { createInterface } from "node:readline";

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
