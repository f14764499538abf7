"""``srcell.load``: loads the trained network of a run folder."""

from __future__ import annotations

from pathlib import Path

import torch

from .._shared.arguments import present_device
from ..models import Classifier
from .config import OWN
from .network import build_model, load_weights


def load(run: str | Path, device: torch.device | str = "cpu") -> Classifier:
    """Load the trained network of a finished run, in evaluation mode; its data set is not needed.

    Args:
        run: the run folder that ``srcell train`` or ``srcell.training.train`` left.
        device: the device to load the network to.

    Returns:
        An ``SRCClassifier``; an ``SRCConvClassifier`` if the run had convolutional layers, an ``IntegerClassifier`` if
        it had integer neurons. The call sets three attributes of the network. ``encoder`` turns images (B, ...) in
        [0, 1] into the network's input, as ``encoder(images, index=None, seed=0)``; it is None if the network reads
        recordings of events. ``class_names`` are the names of the classes, if the data set has some. ``config`` is the
        run's ``TrainingConfig``.

    Raises:
        FileNotFoundError: there is no run in that folder, or it has not finished.
        ValueError: a file is corrupt or of a newer version, the run trained a network of your own, or the device is not
            available.
        ImportError: a dependency of the extra "train" is not installed.

    Example:
        >>> import tempfile
        >>> import torch, srcell
        >>> from srcell.training import TrainingConfig, train
        >>> with tempfile.TemporaryDirectory() as out:
        ...     _ = train(TrainingConfig(hidden_sizes=(), epochs=1, steps=5), out)
        ...     net = srcell.load(out)
        >>> images = torch.rand(3, 8, 8)
        >>> net(net.encoder(images)).shape
        torch.Size([3, 10])
        >>> net.config.dataset
        'digits'

    """
    from .run_folder import RunFolder  # which needs the extra "train"

    place = present_device(device)
    folder = RunFolder.open(run)
    if folder.config.dataset == OWN:
        raise ValueError(f"{folder.path}: {folder.NO_NETWORK}")
    weights = folder.load_model()
    if folder.data is None:
        raise ValueError(f"{folder.path}: expected the sizes of the run's data in its config.json, found none")
    data = folder.data
    model = build_model(folder.config, data.input_shape, data.num_classes, data.class_names)
    load_weights(model, weights, str(folder.path / "model.safetensors"))
    return model.eval().to(place)
