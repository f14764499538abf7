"""A sound, heard by a layer
=========================

This example trains a layer to tell three "words" apart: tones that rise, fall, or do both. Then it draws how one word
passes through ``SoundEncoding`` and the layer: the wave, the cochleagram, the spikes of the bands and those of the
neurons.
"""

import math

import torch
from torch import nn

import srcell
from srcell import data, plots


def word(kind, generator, rate=8000):
    """Return a tone that rises, falls, or does both, with some noise."""
    seconds = 0.3 + 0.2 * torch.rand((), generator=generator)
    t = torch.linspace(0, 1, int(seconds * rate))
    shape = {"rise": t, "fall": 1 - t, "both": 1 - (2 * t - 1).abs()}[kind]
    pitch = (300 + 300 * torch.rand((), generator=generator)) * 2 ** (2 * shape)
    loudness = 0.1 + 0.4 * torch.rand((), generator=generator)
    tone = torch.sin(2 * math.pi * torch.cumsum(pitch, 0) / rate)
    wave = loudness * torch.sin(math.pi * t) * tone
    return wave + 0.01 * torch.randn(len(t), generator=generator)


KINDS = ("rise", "fall", "both")
generator = torch.Generator().manual_seed(0)
labels = torch.arange(180) % 3
waves = [word(KINDS[label], generator) for label in labels]
sounds = data.LabelledSounds.of(waves, labels.tolist(), rate=8000)

# %%
# With ``threshold=`` the encoding sends spikes: a band has one input for a level that rises, and one for a level that
# falls. The layer learns from 120 words and is tested on 60 others.

torch.manual_seed(0)
encoding = data.SoundEncoding(threshold=0.12, frame=0.005)
events = encoding(sounds.waves, lengths=sounds.lengths)
layer = srcell.SRC.for_sequences(encoding.inputs, 64)
readout = srcell.LinearReadout(64, len(KINDS))
network = srcell.Sequential(layer, readout)  # passes on the lengths of the words
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for _ in range(6):
    for batch in torch.randperm(120).split(20):
        loss = nn.functional.cross_entropy(network(events[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

with torch.no_grad():
    test = events[120:]
    spikes, _ = layer(test)
    right = readout(spikes, test.lengths).argmax(1) == labels[120:]
print(f"{right.float().mean():.0%} of 60 new words")

# %%
# The word rises and falls. The colours of the cochleagram show the level that the spikes of a band add up to. In the
# first 40 ms the noise raises the levels of all bands; then the tone stands out. While it rises, levels rise in the
# bands at its upper edge and fall in those at its lower edge; after the peak it is the other way round. The neurons are
# sorted: those at the bottom prefer words that rise and are quiet after the peak, those at the top prefer words that
# fall.

dense, activity = test.to_dense(), (spikes > 0).float().sum(0)
rise, fall = (activity[labels[120:] == kind].mean(0) for kind in (0, 1))
figure = plots.cochleagram(
    test,
    encoding,
    sample=2,
    wave=sounds.waves[120:],
    spikes={
        "level rises": dense[:, :, ::2],
        "level falls": dense[:, :, 1::2],
        "layer": spikes[:, :, (fall - rise).argsort()],
    },
)
figure.suptitle("A word, from the wave to the spikes of a layer")
figure
