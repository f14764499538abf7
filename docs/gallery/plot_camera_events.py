"""Convolution on camera events
============================

This example trains a convolutional network on the events of an event camera, which reports where and when the light
changes. A bar moves over a small simulated sensor in one of four directions, and the network classifies the direction.
The events have the form of a recording: times, places, polarity (lighter or darker).
"""

import matplotlib.pyplot as plt
import torch

import srcell
from srcell.models import SRCConvClassifier

SIZE, STEPS = 16, 60
DIRECTIONS = ["right", "left", "down", "up"]


def record(direction, generator):
    """Return the events of a moving bar: times in microseconds, x, y, polarity."""
    start = torch.randint(0, 4, (), generator=generator)
    along = torch.arange(SIZE).repeat(2)
    times = (1000.0 * (start + 2 * along.float())).repeat_interleave(6)
    polarity = torch.tensor([1, 0]).repeat_interleave(SIZE).repeat_interleave(6)
    across = torch.randint(2, 14, (len(times),), generator=generator)
    front = along.repeat_interleave(6) - (polarity == 0).int()
    front = front if direction in (0, 2) else SIZE - 1 - front
    x, y = (front, across) if direction < 2 else (across, front)
    inside = (x >= 0) & (x < SIZE) & (y >= 0) & (y < SIZE)
    return (z[inside] for z in (times, x, y, polarity))


def batch(labels, seed):
    """Return one recording for each label (a direction), as one ``EventBatch``."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for label in labels.tolist():
        times, x, y, polarity = record(label, generator)
        steps = (times / 1000).long() + 10  # ten silent steps first
        dense = torch.zeros(STEPS, 1, 2, SIZE, SIZE)
        dense[steps, 0, polarity, y, x] = 1
        made.append(srcell.EventBatch.from_dense(dense.flatten(2)))
    return srcell.EventBatch.cat(made)


# %%
# One recording of each direction. The colour of a pixel is the step of its last event, so the bar starts on the dark
# side. Pixels without an event are left empty.

recordings = batch(torch.arange(4), seed=1).to_dense()
maps = recordings.unflatten(2, (2, SIZE, SIZE)).amax(2)
last = (maps * torch.arange(STEPS)[:, None, None, None]).amax(0)
last[last == 0] = float("nan")
figure, panels = plt.subplots(2, 2, figsize=(5, 5.4), layout="constrained")
for panel, when, direction in zip(panels.flat, last, DIRECTIONS, strict=True):
    image = panel.imshow(when, cmap="viridis", vmin=10, vmax=50)
    panel.set(title=direction, xticks=[], yticks=[])
bar = {"ax": panels, "location": "bottom", "aspect": 30}
figure.colorbar(image, label="step of the last event", **bar)

# %%
# The network: two convolutions of spiking neurons, a layer of spiking neurons, and a readout.

torch.manual_seed(0)
shape = (2, SIZE, SIZE)
model = SRCConvClassifier(shape, channels=[8, 16], hidden_sizes=[], num_classes=4)
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for step in range(60):
    labels = torch.randint(4, (32,))
    logits = model(batch(labels, seed=100 + step))
    loss = torch.nn.functional.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

labels = torch.randint(4, (200,))
events = batch(labels, seed=0)
with torch.no_grad():
    right = (model.eval()(events).argmax(1) == labels).float().mean()
print(f"{right:.1%} of 200 new recordings")

# %%
# The response of the first layer to a bar that moves to the right: the output of its eight channels, summed over time.

with torch.no_grad():
    to_the_right = batch(torch.tensor([0]), seed=1)
    spikes = model.layer_spikes(to_the_right)[0]
figure, panels = plt.subplots(2, 4, figsize=(6, 4.3), layout="constrained")
for k, panel in enumerate(panels.flat):
    total = spikes.sum(0)
    image = panel.imshow(total[0, k], cmap="magma", vmin=0, vmax=float(total.max()))
    panel.set(title=f"channel {k}", xticks=[], yticks=[])
bar["ax"] = panels
figure.colorbar(image, label="output, summed over steps", **bar)
