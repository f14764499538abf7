"""Accelerate in several processes: ``torchrun --nproc_per_node=2 with_accelerate.py``."""

import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy

from srcell import data, evaluation
from srcell.models import SRCClassifier

accelerator = Accelerator(cpu=True)
rank, size = accelerator.process_index, accelerator.num_processes

digits, encoding = data.load("digits"), data.RateEncoding(steps=30, gain=0.5)
share = {"rank": rank, "world_size": size}
loader = data.EventLoader(digits.train, encoding, batch_size=64, shuffle=True, **share)
torch.manual_seed(0)
model = SRCClassifier(64, [32], num_classes=10)
optimizer = torch.optim.Adam(model.parameters(), lr=5e-2)
network, optimizer = accelerator.prepare(model, optimizer)

for epoch in range(5):
    loader.set_epoch(epoch)
    total = 0.0
    for index, (events, labels) in enumerate(loader):
        logits = network(events.to(accelerator.device))
        # The mean over the whole batch: gradients are averaged over processes,
        # whose shares may differ by a sample.
        summed = cross_entropy(logits, labels.to(logits.device), reduction="sum")
        loss = summed * size / loader.samples_in(index)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        total += loss.item()
    accelerator.print(f"epoch {epoch + 1}  loss {total / len(loader):.2f}", flush=True)

if accelerator.is_main_process:
    test = data.EventLoader(digits.test, encoding)
    result = evaluation.evaluate(model, test, accelerator.device)
    print(f"test accuracy {result.accuracy:.1%}")
accelerator.end_training()
