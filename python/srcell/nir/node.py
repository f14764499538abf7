"""The Spiking Recurrent Cell as a node of a NIR graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._shared.arguments import as_positive, describe
from .._shared.extras import extra
from .._shared.parameters import FIRST, LATER

with extra("nir"):
    import nir

STATE = ("i_0", "h_0", "hs_0")
REQUIRED = (*FIRST, "bias")
OPTIONAL = (*LATER, *STATE)


def as_array(name: str, x: Any, kinds: str, expected: str) -> NDArray[Any]:
    """Return an array; raise unless it is one of NumPy's, with a dtype of these kinds."""
    if not isinstance(x, np.ndarray) or x.dtype.kind not in kinds:
        got = f"one of {x.dtype}" if isinstance(x, np.ndarray) else describe(x)
        raise TypeError(f"{name}: expected {expected}, got {got}")
    return x


@dataclass(eq=False)
class SRCNode(nir.NIRNode):  # type: ignore[misc]
    """Spiking Recurrent Cells: the node that docs/nir.md proposes. No release of NIR has it.

    Its type in files is SRC. ``nir.write`` writes it; ``nir.read`` refuses it, :func:`read_graph` reads it.

    Args:
        alpha, rho, r, rs, zs_hyp, zs_dep, bias: as in :func:`srcell.functional.src`, floating-point arrays of one
            shape F, that of the node's input and output.
        dt: duration of a step, above 0; NIR counts in seconds.
        omega: angular frequency in radians per step, of shape F; absent: 0.
        i_0, h_0, hs_0: the state before the first step, of shape F; absent: 0. All three or none.

    Raises:
        TypeError: an array that is not floating-point, or a ``dt`` that is not a number.
        ValueError: arrays of different shapes, a part of the initial state alone, or a ``dt`` that is not above 0.

    Source: this project's proposal.

    Example:
        >>> import numpy as np
        >>> from srcell import nir
        >>> cell = {"alpha": 0.9, "rho": 3.0, "r": 2.0, "rs": -7.0, "zs_hyp": 0.9, "zs_dep": 0.0, "bias": -6.0}
        >>> nir.SRCNode(**{name: np.full(5, value, np.float32) for name, value in cell.items()}, dt=0.001).output_type
        {'output': array([5])}

    """

    alpha: NDArray[Any]
    rho: NDArray[Any]
    r: NDArray[Any]
    rs: NDArray[Any]
    zs_hyp: NDArray[Any]
    zs_dep: NDArray[Any]
    bias: NDArray[Any]
    dt: float
    omega: NDArray[Any] | None = None
    i_0: NDArray[Any] | None = None
    h_0: NDArray[Any] | None = None
    hs_0: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        given = [name for name in (*REQUIRED, *OPTIONAL) if name in REQUIRED or getattr(self, name) is not None]
        for name in given:
            array = as_array(name, getattr(self, name), "f", "a floating-point array")
            if array.shape != self.alpha.shape:
                raise ValueError(f"{name}: expected shape {self.alpha.shape}, as alpha has, got {array.shape}")
        if len({name in given for name in STATE}) > 1:
            raise ValueError(f"i_0, h_0 and hs_0: expected all three or none, got {', '.join(given[len(REQUIRED) :])}")
        as_positive("dt", self.dt)
        self.input_type = {"input": np.array(self.alpha.shape)}
        self.output_type = {"output": np.array(self.alpha.shape)}

    @classmethod
    def from_dict(cls, kwargs: dict[str, Any]) -> SRCNode:
        """The node of a file's fields, among them its type."""
        return cls(**{name: value for name, value in kwargs.items() if name != "type"})

    def to_dict(self) -> dict[str, Any]:
        """The fields that the node has, and its type."""
        return {name: value for name, value in super().to_dict().items() if value is not None} | {"type": "SRC"}
