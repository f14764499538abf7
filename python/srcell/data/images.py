"""MNIST and Fashion-MNIST, read and downloaded by torchvision, and the digits that scikit-learn ships.

Only ``srcell.data`` calls this.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .._shared.extras import extra
from .dataset import Dataset, LabelledImages
from .downloads import download as fetch
from .files import fault_of, find_folder

CLASSES = 10
GREY_LEVELS, SPLIT_SEED = 16, 0  # of scikit-learn's digits
# What torchvision's parser may raise for a corrupt file: it uses assertions, lookups and views.
CORRUPT = (ValueError, TypeError, AssertionError, LookupError, RuntimeError, EOFError, gzip.BadGzipFile, zlib.error)


def load_digits() -> Dataset:
    """Load the 1797 digits, a stratified quarter of them held out for testing.

    The split is always the same (drawn with seed 0): 1347 training images, 450 test images.

    Returns:
        A ``Dataset`` of images (B, 8, 8), float32 in [0, 1] (sixteen grey levels above black), of ten classes.

    Raises:
        ImportError: scikit-learn is not installed.

    Example:
        >>> digits = load_digits()
        >>> digits.train.images.shape, digits.test.images.shape
        (torch.Size([1347, 8, 8]), torch.Size([450, 8, 8]))
        >>> digits.test.labels.bincount()
        tensor([45, 46, 44, 46, 45, 46, 45, 45, 43, 45])

    """
    with extra("train"):
        from sklearn import datasets, model_selection

    digits = datasets.load_digits()
    images, labels = torch.from_numpy(digits.images).float() / GREY_LEVELS, torch.from_numpy(digits.target).long()
    train_images, test_images, train_labels, test_labels = model_selection.train_test_split(
        images, labels, stratify=digits.target, random_state=SPLIT_SEED
    )
    train, test = LabelledImages(train_images, train_labels), LabelledImages(test_images, test_labels)
    return Dataset(train, test, CLASSES, (1, 8, 8))


def load_mnist(root: str | Path, *, download: bool = False) -> Dataset:
    """Load MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 x 28 pixels.

    Args:
        root: the folder that holds ``MNIST/raw`` (torchvision's layout) or ``mnist``, with the four IDX files in it,
            gzipped or not.
        download: download missing files into ``root``, from torchvision's addresses, and let it unpack them.

    Returns:
        A ``Dataset`` of images (B, 28, 28), float32 in [0, 1], of ten classes.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is corrupt; the message names it.
        ImportError: torchvision is not installed.

    Example:
        >>> load_mnist("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no MNIST in no-such-folder: expected the folder MNIST/raw or mnist there...

    """
    return _load("MNIST", root, ("MNIST/raw", "mnist"), download)


def load_fashion_mnist(root: str | Path, *, download: bool = False) -> Dataset:
    """Load Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28 x 28 pixels, in ten classes.

    Arguments, result and errors are as for ``load_mnist``; the folder is ``FashionMNIST/raw`` or ``fashion-mnist``.

    Example:
        >>> load_fashion_mnist("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no FashionMNIST in no-such-folder: expected the folder FashionMNIST/raw or fashion-mnist...

    """
    return _load("FashionMNIST", root, ("FashionMNIST/raw", "fashion-mnist"), download)


def _load(name: str, root: str | Path, folders: tuple[str, ...], download: bool) -> Dataset:
    with extra("train"):
        from torchvision import datasets

    root = Path(root)
    if download:
        of_torchvision = getattr(datasets, name)
        for file, md5 in of_torchvision.resources:
            if not (root / name / "raw" / Path(file).stem).exists():
                fetch([mirror + file for mirror in of_torchvision.mirrors], root / name / "raw" / file, md5)
        of_torchvision(root, download=True)  # which finds and unpacks them
    folder = find_folder(name, root, folders, (), f"the folder {' or '.join(folders)} there")
    train, test = (_read_part(folder, part) for part in ("train", "t10k"))
    height, width = train.images.shape[1:]
    if test.images.shape[1:] != train.images.shape[1:]:
        sizes = [f"{samples.images.shape[1]} x {samples.images.shape[2]}" for samples in (train, test)]
        raise ValueError(f"{folder}: expected images of one size, got {' and '.join(sizes)}: download them again")
    return Dataset(train, test, CLASSES, (1, height, width))


def _read_part(folder: Path, part: str) -> LabelledImages:
    with extra("train"):
        from torchvision.datasets.mnist import read_image_file, read_label_file

    images_path, images = _read(folder / f"{part}-images-idx3-ubyte", read_image_file)
    labels_path, labels = _read(folder / f"{part}-labels-idx1-ubyte", read_label_file)
    if len(images) != len(labels):
        raise ValueError(
            f"{labels_path}: expected a label for each of the {len(images)} images of {images_path.name}, "
            f"got {len(labels)}: download both again"
        )
    if int(labels.max()) >= CLASSES:
        raise ValueError(
            f"{labels_path}: expected labels 0 to {CLASSES - 1}, got {int(labels.max())}: download it again"
        )
    return LabelledImages(images.float() / 255, labels)


def _read(path: Path, parse: Callable[[str], Tensor]) -> tuple[Path, Tensor]:
    """The path of a file, or else of its gzipped form, and its parsed content."""
    zipped = path.with_name(path.name + ".gz")
    source = path if path.exists() or not zipped.exists() else zipped
    try:
        if source is path:
            return source, parse(str(path))
        with tempfile.NamedTemporaryFile() as plain:
            with gzip.open(zipped) as file:
                shutil.copyfileobj(file, plain)
            plain.flush()
            return source, parse(plain.name)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there, nor {zipped.name}: download the data set again") from None
    except CORRUPT as error:
        raise fault_of(error, source, "delete it and download it again") from error
