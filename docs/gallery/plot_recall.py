"""Remembering a symbol through noise
===================================

This example trains a layer with recurrent weights (``recurrent=True``) to remember. One of eight
symbols is shown for five steps, then come noise spikes, then a cue: which symbol was it? The
readout uses only the spikes of the last 20 steps, so the neurons must have kept the symbol. The
neurons' integrators have time constants from 2 to 100 steps.
"""

from itertools import islice

import matplotlib.pyplot as plt
import torch

import srcell
from srcell import data
from srcell.models import SRCClassifier

torch.manual_seed(0)
recall, encoding = data.load("delayed-recall"), data.RecallEncoding(delay=100)
loader = data.EventLoader(recall.train, encoding, batch_size=128, shuffle=True)
model = SRCClassifier(
    *(25, [128], 8),
    recurrent=True,
    alpha=srcell.spread(0.5, 0.99),
    zs_hyp=0.5,
    initial_state="rest",
    readout="linear",
    readout_alpha=0.97,
    readout_window=20,
)

# %%
# Backpropagation through time with the default gradients, 200 batches.

optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
correct = []
for events, symbols in islice(loader, 200):
    logits = model(events)
    loss = torch.nn.functional.cross_entropy(logits, symbols)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    correct.append(float((logits.argmax(1) == symbols).float().mean()))

print(f"the last 20 batches: {sum(correct[-20:]) / 20:.0%}, by chance 12 %")

# %%
# One sample: the input, the neurons' spikes, and the probability of each symbol, at every step, if the readout were
# asked at that step.

sample = encoding(recall.test.images[5:6], torch.tensor([5]), seed=1)
with torch.no_grad():
    (spikes,) = model.layer_spikes(sample)
    asked = torch.stack(
        [model.readout(spikes[: t + 1])[0] for t in range(len(spikes))]
    )

figure, panels = plt.subplots(
    3, 1, figsize=(9, 7), sharex=True, layout="constrained", height_ratios=(2, 4, 2)
)
for panel, output, color in zip(
    panels[:2], (sample.to_dense(), spikes), ("C0", "C3"), strict=True
):
    at, _, neuron = output.nonzero(as_tuple=True)
    panel.scatter(at, neuron, marker="|", s=12, color=color)
panels[0].set(ylabel="input", title="symbol 5, noise, cue")
panels[1].set(ylabel="neuron")
panels[2].plot(asked.softmax(1), color="0.7", linewidth=0.8)
panels[2].plot(asked.softmax(1)[:, 5], color="C3", label="symbol 5")
panels[2].set(xlabel="step", ylabel="probability", ylim=(0, 1.05))
_ = panels[2].legend(loc="center right")
