"""A stream, step by step
======================

This example runs a layer on a stream, one step at a time. The spikes have the same bits as those of one call over the
whole recording. State is explicit: the state that a call returns is passed to the next call.
"""

import matplotlib.pyplot as plt
import torch

import srcell

torch.manual_seed(0)
steps = 200
layer = srcell.SRC(32, 24)
rate = 0.02 + 0.1 * (torch.arange(steps) % 100 < 40)  # busy and quiet periods
recording = (torch.rand(steps, 1, 32) < rate[:, None, None]).float()

# %%
# Once over the whole recording, and once as if the steps arrived one at a time.

with torch.no_grad():
    whole, _ = layer(srcell.EventBatch.from_dense(recording))
    state, stream, slow = None, [], []
    for now in recording.split(1):
        spikes, state = layer(srcell.EventBatch.from_dense(now), state)
        stream.append(spikes)
        slow.append(state.hs[0, 0])

assert torch.equal(torch.cat(stream), whole)  # the same bits
print(f"{int((whole > 0).sum())} active elements, the same in both")

# %%
# The raster, and below it the slow state of every neuron. Where the slow state is high, the neuron is refractory: it
# cannot fire.

figure, (above, below) = plt.subplots(
    2, 1, figsize=(9, 5), sharex=True, layout="constrained"
)
at, _, neuron = whole.nonzero(as_tuple=True)
above.scatter(at, neuron, marker="|", s=24, color="C3")
above.set(ylabel="neuron", title="spikes")
image = below.imshow(
    torch.stack(slow).t(),
    aspect="auto",
    origin="lower",
    cmap="viridis",
    interpolation="nearest",
)
below.set(xlabel="step", ylabel="neuron", title="slow state hs")
figure.colorbar(image, ax=below, label="hs")
