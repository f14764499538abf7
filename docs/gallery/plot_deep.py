"""Seven hidden layers, one learning rate
======================================

This example trains seven hidden layers of Spiking Recurrent Cells with one learning rate. Two things let the gradient
reach the first layer. First, hidden layers after the first start as relays: each neuron passes on the spikes of one
neuron of the layer before. Second, ``balance_gradients`` keeps the gradients of all layers at one size.
"""

import matplotlib.pyplot as plt
import torch

from srcell import data
from srcell.evaluation import evaluate
from srcell.models import SRCClassifier

torch.manual_seed(0)
digits = data.load("digits")
encoding = data.RateEncoding(steps=30, gain=1.0)
train = data.EventLoader(digits.train, encoding, batch_size=64, shuffle=True)
options = {
    "hidden_sizes": [64] * 7,
    "num_classes": 10,
    "temperature": 6.0,
    "readout_alpha": 1.0,
}

# %%
# How large is the gradient in each layer before training? Without balancing, the gradient grows from the last layer to
# the first.

events, labels = next(iter(train))


def gradient_norms(balance_gradients):
    torch.manual_seed(0)
    model = SRCClassifier(64, **options, balance_gradients=balance_gradients)
    torch.nn.functional.cross_entropy(model(events), labels).backward()
    return [float(layer.weight_ih_l0.grad.norm()) for layer in model.src_layers()]


figure, panel = plt.subplots(figsize=(6, 3.4), layout="constrained")
for balance_gradients, label in ((False, "as it is"), (True, "balanced")):
    panel.semilogy(range(1, 9), gradient_norms(balance_gradients), "o-", label=label)
panel.set(
    xlabel="layer",
    ylabel="norm of the weight's gradient",
    title="gradients before training",
)
panel.legend()

# %%
# With balanced gradients the network trains with one learning rate for all layers.

torch.manual_seed(0)
model = SRCClassifier(64, **options, balance_gradients=True)
optimizer = torch.optim.Adam(model.parameters())
epochs = 8
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, 3e-2, total_steps=epochs * len(train)
)
losses = []
for epoch in range(epochs):
    train.set_epoch(epoch)
    for events, labels in train:
        loss = torch.nn.functional.cross_entropy(model(events), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())

accuracy = evaluate(model.eval(), data.EventLoader(digits.test, encoding)).accuracy
print(f"{accuracy:.1%} of the test digits")

figure, panel = plt.subplots(figsize=(6, 3.4), layout="constrained")
panel.plot(losses, linewidth=1)
panel.set(
    xlabel="step of the optimiser",
    ylabel="cross-entropy (nats)",
    title=f"{accuracy:.1%} of the test digits",
)
