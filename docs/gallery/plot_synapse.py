"""A synapse of your own
=====================

This example puts a synapse of your own before the neurons. ``srcell.src`` is the neuron alone: it
receives the currents of any synapse, and passes gradients back to the torch operations that computed these currents.
Here each input arrives over three weights with different delays, and the neurons learn to detect an order: input A,
then B.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import srcell


class DelayedSynapse(nn.Module):
    """Pass each input to each neuron after 0, 4 and 8 steps, by three weights."""

    DELAYS = (0, 4, 8)

    def __init__(self, inputs, neurons):
        super().__init__()
        weight = torch.randn(len(self.DELAYS), neurons, inputs) * 2
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.full((neurons,), -6.0))

    def forward(self, x):
        current = 0
        for delay, weight in zip(self.DELAYS, self.weight, strict=True):
            late = nn.functional.pad(x, (0, 0, 0, 0, delay, 0))[: len(x)]
            current = current + late @ weight.t()
        return srcell.src(current, self.bias)[0]


def samples(count, generator):
    """Return spikes (T, B, 2) of A and B, 8 steps apart, and whether A was first."""
    a_first = torch.rand(count, generator=generator) < 0.5
    start = torch.randint(20, 40, (count,), generator=generator)
    x = torch.zeros(80, count, 2)
    first = (~a_first).long()
    x[start, torch.arange(count), first] = 1
    x[start + 8, torch.arange(count), 1 - first] = 1
    return x, a_first.float()


# %%
# The loss asks that the sum of all outputs be above 4 if A came first, and below 4 if B came first.

torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)
synapse = DelayedSynapse(inputs=2, neurons=8)
optimizer = torch.optim.Adam(synapse.parameters(), lr=0.05)
for _ in range(150):
    x, a_first = samples(64, generator)
    votes = synapse(x).sum((0, 2)) - 4.0
    loss = nn.functional.binary_cross_entropy_with_logits(votes, a_first)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        synapse.bias.clamp_(max=-4.0)

x, a_first = samples(500, generator)
with torch.no_grad():
    spikes = synapse(x)
right = ((spikes.sum((0, 2)) > 4.0).float() == a_first).float().mean()
print(f"{right:.1%} of 500 new samples")

# %%
# One sample of each order: the inputs are lines, and a mark shows an active neuron. If A comes first, several neurons
# are active even before B: they respond to an A without a B before it. The other order leaves a few marks,
# because the loss only asks for a small sum.

figure, panels = plt.subplots(
    1, 2, figsize=(9, 3.6), sharey=True, layout="constrained"
)
orders = {"A, then B": 1.0, "B, then A": 0.0}
for panel, (title, order) in zip(panels, orders.items(), strict=True):
    sample = int((a_first == order).nonzero()[0])
    for k, name in enumerate("AB"):
        step = int(x[:, sample, k].argmax())
        panel.axvline(
            step, color=f"C{k}", linewidth=3, alpha=0.4, label=f"input {name}"
        )
    at, neuron = spikes[:, sample].nonzero(as_tuple=True)
    panel.scatter(at, neuron, marker="|", s=80, color="C3", label="active (s > 0)")
    panel.set(xlabel="step", title=title, xlim=(0, 80), ylim=(-0.5, 7.5))
panels[0].set_ylabel("neuron")
lines = panels[0].get_legend_handles_labels()
_ = figure.legend(*lines, loc="outside lower center", ncols=3)
