"""What the scripts of this folder share that train other networks than srcell's, as srcell trains its own."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from srcell.config import TrainingConfig
from srcell.data import Dataset, EventLoader
from srcell.training import EVALUATION_BATCH, RunOptions, load_data, make_encoding, make_optimizer, make_schedule, split


def make_loaders(config: TrainingConfig, options: RunOptions) -> tuple[Dataset, EventLoader, EventLoader, str]:
    """The data set, what to train on, and what to look at in the end: validation samples, or the test set, by name."""
    dataset, encoding = load_data(config, options), make_encoding(config)
    training, validation = split(config, dataset.train)
    name, held_out = ("validation", validation) if len(validation.labels) else ("test", dataset.test)
    loader = EventLoader(training, encoding, config.batch_size, shuffle=True, seed=config.seed)
    return dataset, loader, EventLoader(held_out, encoding, EVALUATION_BATCH), name


def fit(model: nn.Module, config: TrainingConfig, loader: EventLoader, after_step: Callable[[], None]) -> float:
    """Train a network that turns spikes (T, B, K) into logits; the seconds that it took."""
    optimizer = make_optimizer(config, model)
    schedule = make_schedule(config, optimizer, config.epochs * len(loader))
    start = time.perf_counter()
    for epoch in range(1, config.epochs + 1):
        loader.set_epoch(epoch)
        losses, norms = [], []
        for events, labels in loader:
            loss = nn.functional.cross_entropy(model(events.to_dense()), labels)
            optimizer.zero_grad()
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), torch.inf))
            optimizer.step()
            schedule.step()
            after_step()
            losses.append(loss.item())
        norm = torch.stack(norms)
        print(
            f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}, "
            f"gradient norm median {norm.median():.3g}, largest {norm.max():.3g}",
            flush=True,
        )
    return time.perf_counter() - start
