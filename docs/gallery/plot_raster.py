"""A digit, seen by a network
==========================

This example trains a network 64-64-100 on the 8 x 8 digits of scikit-learn in a few seconds, and draws how one test
digit passes through it: every event of the pixels, of the hidden layer and of the neurons that vote, and the votes as
they add up.
"""

import torch

from srcell import data, plots
from srcell.evaluation import evaluate
from srcell.models import SRCClassifier

torch.manual_seed(0)
digits = data.load("digits")
encoding = data.RateEncoding(steps=60, gain=0.5)
train = data.EventLoader(digits.train, encoding, batch_size=64, shuffle=True)
test = data.EventLoader(digits.test, encoding)

# %%
# The training loop is that of any torch model.

model = SRCClassifier(64, [64], num_classes=10)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
for epoch in range(6):
    train.set_epoch(epoch)
    for events, labels in train:
        loss = torch.nn.functional.cross_entropy(model(events), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

result = evaluate(model.eval(), test)
print(f"{result.accuracy:.1%} of the test digits")

# %%
# Each mark is an element of the output that is not 0. The last panel shows the logits of the ten classes, from the
# votes that the readout has summed so far. If training raised the bias of a neuron above about -4.6, this neuron fires
# without input, in the shaded silent steps too.

events, labels = next(iter(data.EventLoader(digits.test, encoding, batch_size=1)))
figure = plots.raster(model, events, int(labels), prefix=encoding.prefix)
figure

# %%
# The states of four neurons of the last layer for the same sample. The dotted drive pushes the fast state up. A spike
# is the jump of the fast state to 1. The spike raises the slow state, which prevents the next spike for some twenty
# steps.

figure = plots.traces(model, events, int(labels), prefix=encoding.prefix)
figure
