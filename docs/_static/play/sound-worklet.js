/* Posts the microphone's samples to the page in blocks; runs in the browser's audio thread. */
const BLOCK = 1024; // samples: 21 ms at 48 kHz

class Tap extends AudioWorkletProcessor {
  block = new Float32Array(BLOCK);
  filled = 0;

  process([[samples]]) {
    for (const sample of samples ?? []) {
      this.block[this.filled++] = sample;
      if (this.filled < BLOCK) continue;
      this.port.postMessage(this.block);
      this.filled = 0;
    }
    return true;
  }
}

registerProcessor("sound-tap", Tap);
