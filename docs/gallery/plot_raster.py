"""A digit, seen by a network
==========================

A network 64-64-100 learns the 8 x 8 digits of scikit-learn in a few seconds. Then one test digit goes through it, and
the picture shows every event of it: the pixels, the hidden layer, the neurons that vote, and the votes as they add up.
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
# Training is the loop of any torch model, and one line more: ``constrain_`` keeps the biases at -4 or below.

model = SRCClassifier(64, [64], num_classes=10)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
for epoch in range(6):
    train.set_epoch(epoch)
    for events, labels in train:
        loss = torch.nn.functional.cross_entropy(model(events), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.constrain_()

result = evaluate(model.eval(), test)
print(f"{result.accuracy:.1%} of the test digits")

# %%
# A mark stands where an element of the output is not 0. The last panel has the logits of the ten classes, from what the
# readout has summed up so far. Neurons whose bias training raised above about -4.6 fire without input, in the shaded
# silent steps too.

events, labels = next(iter(data.EventLoader(digits.test, encoding, batch_size=1)))
figure = plots.raster(model, events, int(labels), prefix=encoding.prefix)
figure

# %%
# The same sample inside four neurons of the last layer. The dotted drive pushes the fast state up; a spike is its jump
# to 1, and the slow state that it leaves behind keeps the next one away for some twenty steps.

figure = plots.traces(model, events, int(labels), prefix=encoding.prefix)
figure
