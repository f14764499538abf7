"""The check of error messages, and lengths that must be refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from support.inputs import BATCH, STEPS


def assert_refused(error: type[Exception], argument: str, function: Any, *args: Any, **keywords: Any) -> None:
    with pytest.raises(error) as caught:
        function(*args, **keywords)
    assert re.match(rf"{re.escape(argument)}\b.*expected .*got ", str(caught.value), re.DOTALL), str(caught.value)


BAD_LENGTHS = [
    (ValueError, [STEPS + 1, 0, 0]),
    (ValueError, [STEPS, -1, 0]),
    (ValueError, torch.tensor([0, 0, STEPS + 1], dtype=torch.int32)),
    (ValueError, [STEPS, STEPS]),
    (ValueError, torch.zeros(1, BATCH, dtype=torch.int64)),
    (ValueError, torch.zeros(BATCH, dtype=torch.int64, device="meta")),
    (TypeError, [1.0, 2.0, 3.0]),
    (TypeError, torch.ones(BATCH, dtype=torch.bool)),
]
