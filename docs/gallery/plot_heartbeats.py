"""The parts of a heartbeat
========================

A class for each step: this example simulates the two leads of an electrocardiogram, turns them into events
wherever a lead crosses a level, and trains a layer to tell, at every step, which part of a heartbeat it is. The
real ones are the data set ``qtdb``; :doc:`/howto/heartbeats` has what networks reach there. It is no medical device.
"""

import torch

import srcell
from srcell import EventBatch, data, plots

PARTS = ("P", "PQ", "QR", "RS", "ST", "TP")
BEGINS = (-26, -14, -5, 0, 6, 40)  # in steps from the peak of a heartbeat
WAVES = ((-20, 4, 0.15, 0.1), (-3, 1.5, -0.1, -0.2), (0, 1.5, 1.0, 0.6))
WAVES += (
    (3, 1.5, -0.2, 0.3),
    (28, 7, 0.3, -0.2),
)  # place, width, height in each lead


def recording(generator, steps=500):
    """Two leads (steps, 2), and the part of a heartbeat at each step."""
    t, signal = torch.arange(steps).float(), torch.zeros(steps, 2)
    labels = torch.full((steps,), data.IGNORED)
    peak = 20 + 60 * torch.rand((), generator=generator)
    while peak < steps:
        for place, width, *heights in WAVES:
            wave = (-0.5 * ((t - peak - place) / width).square()).exp()
            signal += wave[:, None] * torch.tensor(heights)
        for part, begin in enumerate(BEGINS):
            labels[max(int(peak) + begin, 0) :] = part
        peak = peak + 90 + 30 * torch.rand((), generator=generator)
    return signal + 0.01 * torch.randn(steps, 2, generator=generator), labels


def crossings(signal, level=0.04):
    """Whether each lead rises, and whether it falls, by a level since its last event."""
    last, events = signal[0].clone(), []
    for now in signal:
        rises, falls = now - last > level, last - now > level
        last = torch.where(rises | falls, now, last)
        events.append(torch.cat([rises, falls]))
    return torch.stack(events)


generator = torch.Generator().manual_seed(0)
signals, parts = zip(*(recording(generator) for _ in range(100)), strict=True)
x = torch.stack([crossings(signal) for signal in signals], 1).float()
labels = torch.stack(parts)
print(f"{x.mean():.1%} of the inputs are active")

# %%
# The readout answers at every step, from the spikes of some twenty steps. Steps before the first heartbeat have no
# label, ``data.IGNORED``, which the loss of torch leaves out.

torch.manual_seed(0)
network = srcell.Sequential(
    srcell.SRC.for_sequences(4, 64, memory=200),
    srcell.LinearReadout(64, len(PARTS), alpha=0.95, every_step=True),
)
events = EventBatch.from_dense(x)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(12):
    for batch in torch.randperm(80).split(16):
        logits = network(events[batch])  # steps, samples, parts
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[batch].t().flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

with torch.no_grad():
    told = network(events[80:])
known = labels[80:] != data.IGNORED
right = told.argmax(2).t() == labels[80:]
print(f"{right[known].float().mean():.1%} of the steps of 20 other recordings")

# %%
# Above the events of a recording, in the middle its parts, below the predicted ones.

figure = plots.labelled_steps(events[80:], labels[80:], told, class_names=PARTS)
figure
