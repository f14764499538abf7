"""``IGNORED``: the label of a step that has none."""

IGNORED = -100
"""The label of a step that has none: losses and accuracies leave it out, as ``torch.nn.CrossEntropyLoss`` does."""
