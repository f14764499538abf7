"""Lightning in several processes: ``torchrun --nproc_per_node=2 with_lightning.py``."""

import os

import lightning
import torch
from torch.nn.functional import cross_entropy

from srcell import data, evaluation
from srcell.models import SRCClassifier

digits, encoding = data.load("digits"), data.RateEncoding(steps=30, gain=0.5)


class Digits(lightning.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def train_dataloader(self):
        share = {"rank": self.global_rank, "world_size": self.trainer.world_size}
        loader = data.EventLoader(digits.train, encoding, 64, shuffle=True, **share)
        loader.set_epoch(self.current_epoch)
        return loader

    def training_step(self, batch, index):
        events, labels = batch
        # The mean over the whole batch: gradients are averaged over processes,
        # whose shares may differ by a sample.
        whole = self.trainer.world_size / self.trainer.train_dataloader.samples_in(index)
        loss = cross_entropy(self.model(events), labels, reduction="sum") * whole
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-2)

    def on_train_epoch_end(self):
        loss = self.trainer.callback_metrics["loss"]
        self.print(f"epoch {self.current_epoch + 1}  loss {loss:.2f}", flush=True)


torch.manual_seed(0)
model = SRCClassifier(64, [32], num_classes=10)
trainer = lightning.Trainer(
    accelerator="cpu",
    strategy="ddp",
    devices=int(os.environ["LOCAL_WORLD_SIZE"]),
    num_nodes=int(os.environ["GROUP_WORLD_SIZE"]),
    max_epochs=5,
    reload_dataloaders_every_n_epochs=1,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
)
trainer.fit(Digits(model))

if trainer.is_global_zero:
    result = evaluation.evaluate(model, data.EventLoader(digits.test, encoding))
    print(f"test accuracy {result.accuracy:.1%}")
trainer.strategy.barrier()  # or a process may exit inside gloo; some did with torch 2.4
