"""Braille letters by touch
========================

A finger with six pressure sensors slides over a letter of raised dots. This example simulates the touch, trains a
layer to name the letter, and draws after how many steps the answer is right. Recordings that others publish on are
the data set ``braille``.
"""

import matplotlib.pyplot as plt
import torch

import srcell

LETTERS = " ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# The first ten letters, of the dots 1, 2, 4 and 5; the next ten add dot 3, the rest 3 and 6, but for W.
FIRST = ("1", "12", "14", "145", "15", "124", "1245", "125", "24", "245")
DOTS = dict(zip("ABCDEFGHIJ", FIRST, strict=True)) | {" ": "", "W": "2456"}
DOTS |= {
    letter: dots + "3" for letter, dots in zip("KLMNOPQRST", FIRST, strict=True)
}
DOTS |= {
    letter: dots + "36" for letter, dots in zip("UVXYZ", FIRST[:5], strict=True)
}
PLACES = {
    "1": (0, 0),
    "2": (0, 1),
    "3": (0, 2),
    "4": (1, 0),
    "5": (1, 1),
    "6": (1, 2),
}
SENSORS = [(column, row) for column in (0, 1) for row in range(3)]
STEPS = 80


def touch(letter, generator):
    """Pressure (steps, 6) of a finger that slides over a letter, more or less fast and well aimed."""
    speed, start, high = torch.rand(3, generator=generator)
    at = -1.5 + 0.5 * start + (0.045 + 0.01 * speed) * torch.arange(STEPS)
    pressure = torch.zeros(STEPS, len(SENSORS))
    for dot in DOTS[letter]:
        x, y = PLACES[dot]
        for k, (column, row) in enumerate(SENSORS):
            far = (at + 0.5 * column - x).square() + (
                row + 0.3 * high - 0.15 - y
            ) ** 2
            pressure[:, k] += torch.exp(-far / 0.1)
    return pressure + 0.05 * torch.randn(pressure.shape, generator=generator)


generator = torch.Generator().manual_seed(0)
labels = torch.arange(27 * 30) % 27
x = torch.stack([touch(LETTERS[label], generator) for label in labels], 1)
training = 27 * 20

# %%
# The network reads raw pressures. The readout answers at every step; the loss is that of the last answer.

torch.manual_seed(0)
network = srcell.Sequential(
    srcell.Standardise.of(x[:, :training].transpose(0, 1)),
    srcell.SRC.for_sequences(6, 96, memory=50),
    srcell.LinearReadout(96, 27, every_step=True),
)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(15):
    for batch in torch.randperm(training).split(27):
        logits = network(x[:, batch])[-1]
        loss = torch.nn.functional.cross_entropy(logits, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

with torch.no_grad():
    asked = network(x[:, training:]).softmax(2)  # steps, samples, letters
right = asked[-1].argmax(1) == labels[training:]
print(f"{right.float().mean():.1%} of 270 other touches")

# %%
# Four letters: above the pressures, below the probability of each letter, the right one thick. An A is known late: it
# could become another letter until its second column has passed without a dot.

shown = "ADOY"
figure, panels = plt.subplots(
    *(2, len(shown)),
    figsize=(9, 3.6),
    sharex=True,
    sharey="row",
    layout="constrained",
)
for (above, below), letter in zip(panels.T, shown, strict=True):
    sample = training + LETTERS.index(letter)
    above.plot(x[:, sample], linewidth=0.8)
    above.set_title(f"{letter}, dots {' '.join(sorted(DOTS[letter]))}")
    below.plot(asked[:, sample - training], color="0.7", linewidth=0.6)
    below.plot(asked[:, sample - training, LETTERS.index(letter)], linewidth=2)
    below.set_xlabel("step")
panels[0, 0].set_ylabel("pressure")
panels[1, 0].set_ylabel("probability")
figure
