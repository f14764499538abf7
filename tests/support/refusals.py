"""Calls that must raise an error that names the argument, as rows of a table, and lengths that must be refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from support.inputs import BATCH, STEPS


def assert_refused(error: type[Exception], argument: str, function: Any, *args: Any, **keywords: Any) -> None:
    with pytest.raises(error) as caught:
        function(*args, **keywords)
    assert re.match(rf"{re.escape(argument)}\b.*expected .*got ", str(caught.value), re.DOTALL), str(caught.value)


def user_error(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ``srcell LINE`` prints."""
    from srcell.cli import main  # test_cuda.py runs without its dependencies

    assert main(line.split()) == 2
    printed = capsys.readouterr()
    (error,) = printed.err.splitlines()
    assert printed.out == ""
    return error


class Refusal(NamedTuple):
    """A call that must raise `error` with "`argument`...: expected ..., got ..."."""

    argument: str
    call: Callable[[], Any]
    error: type[Exception] = ValueError

    def check(self) -> None:
        assert_refused(self.error, self.argument, self.call)


class Message(Refusal):
    """A call that must raise `error` with a message whose beginning matches the regular expression `argument`."""

    def check(self) -> None:
        with pytest.raises(self.error, match=f"^{self.argument}"):
            self.call()


def refusals(*rows: Refusal) -> pytest.MarkDecorator:
    """Run a test once for each row: ``@refusals(Refusal("alpha", lambda: SRC(4, 3, alpha=2)), ...)``."""
    return pytest.mark.parametrize("refusal", rows, ids=[row.argument for row in rows])


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
