"""A digit before a moving camera
=================================

This example lets a simulated event camera look at a picture. Nothing in the picture moves, but the camera does: a pixel
sends an event where an edge passes. The same digit gives other events under another movement. See
:doc:`/howto/moving-camera`, also for what agrees with real recordings.
"""

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import ListedColormap

from srcell import data

digit = data.load("digits").test.images[6:7]
picture = torch.nn.functional.interpolate(
    digit[:, None], size=(28, 28), mode="bicubic"
)
picture = picture[:, 0].clamp(0, 1)

# %%
# Three movements: that of Neuromorphic-MNIST, three saccades along a triangle; a pan to the right and back; and a
# tremor. Each is a list of points (step, pixels across, pixels down), and a step is 1 ms.

saccades = data.CameraEncoding().movement
pan = ((0.0, 4.0, 0.0), (150.0, -4.0, 0.0), (300.0, 4.0, 0.0))
generator = torch.Generator().manual_seed(0)
places = torch.randn(60, 2, generator=generator).tolist()
tremor = tuple((5.0 * k, x, y) for k, (x, y) in enumerate(places))
movements = {"saccades": saccades, "pan": pan, "tremor": tremor}

# %%
# The events of 100 steps in one picture, from the given time on: red where brightness rises, blue where it falls,
# grey where it does both. The saccades show other edges in each third of the recording, the pan only upright edges,
# the tremor all edges at once.

figure, panels = plt.subplots(3, 4, figsize=(6.4, 5.2), layout="constrained")
colours = ListedColormap(["none", "tab:red", "tab:blue", "0.5"])
for row, (name, movement) in zip(panels, movements.items(), strict=True):
    camera = data.CameraEncoding(steps=300, movement=movement)
    events = camera(picture, seed=1).to_dense()[:, 0].unflatten(1, (2, 34, 34))
    _, across, down = zip(*movement, strict=True)
    row[0].plot(across, down, linewidth=1)
    row[0].set(title=name, xlim=(-5, 5), ylim=(5, -5), aspect="equal")
    for panel, start in zip(row[1:], (0, 100, 200), strict=True):
        rises, falls = events[start : start + 100].any(0).int()
        panel.imshow(rises + 2 * falls, cmap=colours, vmin=0, vmax=3)
        panel.set(title=f"{start} ms", xticks=[], yticks=[])

# %%
# How many events a recording has depends on the movement, and only a little on the seed, which draws the thresholds and
# levels of the pixels, and the noise.

for name, movement in movements.items():
    camera = data.CameraEncoding(steps=300, movement=movement)
    counts = [camera(picture, seed=seed).num_events for seed in range(3)]
    print(f"{name:10}", *counts)
