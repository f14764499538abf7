"""Weights of two, three, four, eight bits
=======================================

This example shows how many bits the weights of integer neurons need. Integer neurons, which hardware computes, learn
the digits of scikit-learn. Training uses the rounded weights, so the trained network is the one that runs. The float
neuron is shown for comparison: its accuracy, and its states over time.
"""

import matplotlib.pyplot as plt
import torch

import srcell
from srcell import data
from srcell.evaluation import evaluate
from srcell.models import IntegerClassifier, SRCClassifier

digits = data.load("digits")
encoding = data.RateEncoding(steps=40, gain=0.5, prefix=4, thinned=True)
train = data.EventLoader(digits.train, encoding, batch_size=64, shuffle=True)
test = data.EventLoader(digits.test, encoding)

# %%
# Every network has ten neurons for each class and no hidden layer, and is trained by the same loop.


def network(bits):
    if bits is None:
        return SRCClassifier(64, [], 10, temperature=3.0, readout_alpha=1.0)
    return IntegerClassifier(64, [], 10, temperature=3.0, weight_bits=bits)


def fit(bits, seed, epochs=8):
    torch.manual_seed(seed)
    model = network(bits)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 5e-2, total_steps=epochs * len(train)
    )
    for epoch in range(epochs):
        train.set_epoch(epoch)
        for events, labels in train:
            loss = torch.nn.functional.cross_entropy(model(events), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            model.constrain_()
    return model.eval()


names = {2: "2 bits", 3: "3 bits", 4: "4 bits", 8: "8 bits", None: "float"}
models = {bits: [fit(bits, seed) for seed in range(3)] for bits in names}
accuracy = {
    bits: [100 * evaluate(model, test).accuracy for model in found]
    for bits, found in models.items()
}
for bits, found in accuracy.items():
    print(f"{names[bits]}: {sum(found) / 3:.1f} % of the test digits")

# %%
# Each dot is a network with different initial weights, each line the mean of three. From three bits on the networks of
# integer neurons come within one percentage point of the float network. The lower row shows the weights of the first
# network of each kind, in units of that network's largest weight. With two bits there are four values, and most weights
# are 0.

figure, panels = plt.subplot_mosaic(
    [["accuracy"] * 4, [2, 3, 4, 8]],
    figsize=(9, 5.6),
    layout="constrained",
    height_ratios=(1.4, 1),
)
above = panels["accuracy"]
for k, (bits, found) in enumerate(accuracy.items()):
    color = "C1" if bits is None else "C0"
    above.plot([k] * 3, found, "o", color=color, alpha=0.7)
    above.plot([k - 0.2, k + 0.2], [sum(found) / 3] * 2, color=color)
above.set_xticks(range(5), names.values())
above.set(ylabel="test accuracy (%)", title="accuracy against bits of a weight")
above.grid(axis="y", alpha=0.3)
for bits in (2, 3, 4, 8):
    values = models[bits][0].integers()[0].flatten() / 2 ** (bits - 1)
    panels[bits].hist(
        values, bins=[(k - 0.5) / 32 for k in range(-32, 34)], color="C0"
    )
    panels[bits].set(xlim=(-1.1, 1.1), title=f"{bits} bits")
    panels[bits].set(yscale="log", ylim=(0.7, 7000))
    panels[bits].tick_params(labelleft=bits == 2)
panels[2].set(ylabel="number of weights")

# %%
# A test digit in one neuron of the four-bit network, and in a float neuron with the same weights before rounding. Both
# start from zeros and are refractory (cannot fire) at first. After that, any integrator value i above 0 is full drive
# for the integer neuron: the neuron fires every 21 steps, for two steps, and its outputs are 0 or 1. The drive of the
# float neuron grows with i, and its outputs are graded.

layer = models[4][0].layers[0]
events, labels = next(iter(data.EventLoader(digits.test, encoding, batch_size=1)))
float_layer = srcell.SRC(64, 100)
with torch.no_grad():
    float_layer.weight_ih_l0.copy_(layer.weight_ih_l0)
    with srcell.record(layer) as of_integers:
        layer(events)
    with srcell.record(float_layer) as of_floats:
        float_layer(events)

spikes = of_integers["integersrc"].spikes[:, 0]
neuron = int(spikes.sum(0)[labels.item() :: 10].argmax()) * 10 + labels.item()
figure, panels = plt.subplots(
    3,
    2,
    figsize=(9, 6),
    sharex=True,
    layout="constrained",
    height_ratios=(1, 1, 0.35),
)
for column, recording, title in (
    (panels[:, 0], of_integers["integersrc"], "integers"),
    (panels[:, 1], of_floats["src"], "floats"),
):
    i, h, hs = (x[:, 0, neuron] for x in recording.trace())
    column[0].axhline(0, color="0.5", linewidth=0.8)
    column[0].plot(i, ".-", color="C1")
    column[0].set_title(title)
    column[1].plot(hs, ".-", color="C0", label="slow state hs")
    column[1].plot(h, ".-", color="C3", label="fast state h")
    column[2].stem(
        recording.spikes[:, 0, neuron], linefmt="C3", markerfmt=" ", basefmt=" "
    )
    column[2].set(xlabel="step", ylim=(0, 1.1))
panels[0, 0].set(ylabel="integrator i")
panels[1, 0].set(ylabel="states", yticks=range(-1024, 1025, 512))
panels[2, 0].set(ylabel="spikes")
lines = panels[1, 1].get_legend_handles_labels()
figure.legend(*lines, loc="outside lower center", ncols=2)
_ = figure.suptitle(f"neuron {neuron}, for class {labels.item()}")
