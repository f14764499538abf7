/* Learns in a thread of its own, so that the page goes on hearing and drawing; posts the state after each pass. */
import { learning } from "./sound-learn.js";
import { load } from "./srcell.js";

onmessage = async ({ data: { bytes, samples, settings } }) => {
  try {
    const runtime = await load(new URL("./srcell.wasm", import.meta.url));
    for (const state of learning(runtime, bytes, samples, settings)) postMessage(state);
  } catch (error) {
    postMessage({ failed: error.message });
  }
};
