"""The 8 x 8 handwritten digits that scikit-learn ships: real data without a download.

Only ``srcell.data`` calls this.
"""

import torch

from .._extras import extra
from .dataset import Dataset, LabelledImages

GREY_LEVELS = 16
SPLIT_SEED = 0


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
    parts = model_selection.train_test_split(
        torch.from_numpy(digits.images).float() / GREY_LEVELS,
        torch.from_numpy(digits.target).long(),
        stratify=digits.target,
        random_state=SPLIT_SEED,
    )
    train_images, test_images, train_labels, test_labels = parts
    return Dataset(
        LabelledImages(train_images, train_labels), LabelledImages(test_images, test_labels), 10, input_shape=(1, 8, 8)
    )
