"""Your own loop in several processes: ``torchrun --nproc_per_node=2 own_loop.py``."""

import torch
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from srcell import data, evaluation
from srcell.models import SRCClassifier

distributed.init_process_group("gloo")
rank, size = distributed.get_rank(), distributed.get_world_size()

digits, encoding = data.load("digits"), data.RateEncoding(steps=30, gain=0.5)
share = {"rank": rank, "world_size": size}
loader = data.EventLoader(digits.train, encoding, batch_size=64, shuffle=True, **share)
torch.manual_seed(0)
model = SRCClassifier(64, [32], num_classes=10)
network = DistributedDataParallel(model)
optimizer = torch.optim.Adam(model.parameters(), lr=5e-2)

for epoch in range(5):
    loader.set_epoch(epoch)
    total = 0.0
    for index, (events, labels) in enumerate(loader):
        # The mean over the whole batch: gradients are averaged over processes,
        # whose shares may differ by a sample.
        summed = cross_entropy(network(events), labels, reduction="sum")
        loss = summed * size / loader.samples_in(index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    if rank == 0:
        print(f"epoch {epoch + 1}  loss {total / len(loader):.2f}", flush=True)

if rank == 0:
    result = evaluation.evaluate(model, data.EventLoader(digits.test, encoding))
    print(f"test accuracy {result.accuracy:.1%}")
distributed.destroy_process_group()
