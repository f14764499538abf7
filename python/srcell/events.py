"""EventBatch: spikes in time as row-compressed events instead of dense tensors.

Encoders and data sets make batches and the layers run on them; this module must never know where events come from or
what a network does with them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["EventBatch"]

Array: TypeAlias = Tensor | NDArray[Any]
Shape: TypeAlias = tuple[int, int, int]

_MAX_INPUTS = 2**31


class EventBatch:
    r"""Events of B samples over T steps of K inputs, row-compressed like the rows of a CSR matrix.

    Row ``b * T + t`` holds the events of sample b at step t: those from ``offsets[row]`` to ``offsets[row + 1]``. So
    the events of a sample are contiguous, and batches are concatenations. Events of one row may be in any order, and
    several of one input add up. Everything is validated once, at construction; contiguous tensors are kept, not copied,
    and must not be altered afterwards.

    Args:
        offsets: (B\*T + 1,), int64, ascending from 0 to the number of events; tensor or NumPy array, like all others.
        indices: (events,), int32 in [0, K): the input of each event.
        values: (events,), float32 or float64 and not NaN: the size of each event; all are 1 if absent. May require a
            gradient.
        shape: (T, B, K), each at least 0; K at most 2^31.
        lengths: (B,), int64 in [0, T]: the steps of each sample, past which it has no events; T for all if absent.

    ``offsets``, ``indices``, ``values``, ``lengths`` and ``shape`` are attributes. ``len()`` is B. Indexing selects
    samples: ``batch[2]`` and ``batch[-1]`` are batches of one, ``batch[1:3]`` and ``batch[[4, 0, 4]]`` (a list or an
    integer tensor) batches of several.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument, what was expected and what came.

    Source: the project's definition of event batches.

    Example:
        >>> import torch
        >>> from srcell import EventBatch
        >>> offsets, indices = torch.tensor([0, 0, 2, 3, 3]), torch.tensor([0, 2, 1], dtype=torch.int32)
        >>> batch = EventBatch(offsets, indices, shape=(2, 2, 3))
        >>> batch
        EventBatch(shape=(2, 2, 3), num_events=3, values=None, lengths=None, device=cpu)
        >>> batch.to_dense()[:, 0]
        tensor([[0., 0., 0.],
                [1., 0., 1.]])
        >>> [sample.num_events for sample in batch]
        [2, 1]

    """

    offsets: Tensor
    indices: Tensor
    values: Tensor | None
    lengths: Tensor | None
    shape: Shape

    def __init__(
        self,
        offsets: Array,
        indices: Array,
        values: Array | None = None,
        *,
        shape: Sequence[int],
        lengths: Array | None = None,
    ) -> None:
        self.shape = _check_shape(shape)
        steps, batch, _ = self.shape
        self.offsets = _vector("offsets", offsets, batch * steps + 1, "B*T + 1", torch.int64)
        device = self.offsets.device
        self.indices = _vector("indices", indices, None, "events", torch.int32, device=device)
        events = self.indices.numel()
        self.values = None
        if values is not None:
            self.values = _vector("values", values, events, "events", torch.float32, torch.float64, device=device)
        self.lengths = None if lengths is None else _check_lengths(lengths, self.shape, device)
        self._check_values()

    @classmethod
    def _trusted(
        cls, offsets: Tensor, indices: Tensor, values: Tensor | None, shape: Shape, lengths: Tensor | None
    ) -> EventBatch:
        """A batch of parts that are valid by construction."""
        batch = cls.__new__(cls)
        batch.offsets, batch.indices, batch.values = offsets, indices, values
        batch.shape, batch.lengths = shape, lengths
        return batch

    def _check_values(self) -> None:
        inputs = self.shape[2]
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        if first != 0:
            raise ValueError(f"offsets: expected the first to be 0, got {first}")
        row = _first(self.offsets[1:] < self.offsets[:-1])
        if row is not None:
            before, after = self.offsets[row : row + 2].tolist()
            raise ValueError(f"offsets: expected ascending values, got {before} and then {after} at position {row + 1}")
        if last != self.num_events:
            raise ValueError(f"offsets: expected the last to be {self.num_events}, the number of indices, got {last}")
        event = _first((self.indices < 0) | (self.indices >= inputs))
        if event is not None:
            got = int(self.indices[event])
            raise ValueError(f"indices: expected values in [0, {inputs}), got {got} at position {event}")
        event = None if self.values is None else _first(self.values.isnan())
        if event is not None:
            raise ValueError(f"values: expected numbers, got nan at position {event}")
        if self.lengths is not None:
            starts = self._sample_starts()
            sample = _first(self.offsets[starts[:-1] + self.lengths] < self.offsets[starts[1:]])
            if sample is not None:
                length = int(self.lengths[sample])
                raise ValueError(
                    f"lengths: expected no events past a sample's length, got some past the {length} of sample {sample}"
                )

    @classmethod
    def from_dense(cls, x: Array, lengths: Array | None = None) -> EventBatch:
        """The events of a dense tensor: its cells that are not 0.

        Args:
            x: (T, B, K), bool, float32 or float64, without NaN.
            lengths: (B,), int64 in [0, T]: what x holds past a sample's length is ignored.

        Returns:
            A batch on x's device, ascending by input within each row. Its values are absent if all are 1 and x requires
            no gradient; otherwise they have x's dtype, and gradients flow through them to x.

        Raises:
            TypeError: an argument of the wrong type or dtype.
            ValueError: a wrong shape or value.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> batch = EventBatch.from_dense(torch.tensor([[[0.0, 2.0]], [[1.0, 0.0]]]))
            >>> batch.offsets.tolist(), batch.indices.tolist(), batch.values.tolist()
            ([0, 1, 2], [1, 0], [2.0, 1.0])

        """
        x = _as_tensor("x", x)
        if x.dtype not in (torch.bool, torch.float32, torch.float64):
            raise TypeError(f"x: expected dtype bool, float32 or float64, got {x.dtype}")
        if x.dim() != 3:
            raise ValueError(f"x: expected shape (T, B, K), got {tuple(x.shape)}")
        shape = _check_shape(x.shape, "x")
        sample_major = x.transpose(0, 1)
        fires = sample_major != 0
        if lengths is not None:
            lengths = _check_lengths(lengths, shape, x.device)
            fires &= (torch.arange(shape[0], device=x.device) < lengths[:, None])[:, :, None]
        offsets = _offsets(fires.sum(2).flatten())
        sample, step, index = fires.nonzero(as_tuple=True)
        values: Tensor | None = None
        if x.dtype != torch.bool:
            values = sample_major[sample, step, index]
            event = _first(values.isnan())
            if event is not None:
                where = (int(step[event]), int(sample[event]), int(index[event]))
                raise ValueError(f"x: expected numbers, got nan at {where}")
            if not values.requires_grad and bool((values == 1).all()):
                values = None
        return cls._trusted(offsets, index.to(torch.int32), values, shape, lengths)

    @classmethod
    def cat(cls, batches: Iterable[EventBatch]) -> EventBatch:
        """Join batches of the same T, K and device, sample after sample.

        Lengths and values are kept. Where only some batches have lengths, the others get T; where only some have
        values, the others get ones; float32 beside float64 values become float64.

        Args:
            batches: at least one batch.

        Raises:
            TypeError: something else than a batch.
            ValueError: no batch, or batches that differ in T, K or device.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> batch = EventBatch.from_dense(torch.ones(5, 2, 3))
            >>> EventBatch.cat([batch, batch[1]]).shape
            (5, 3, 3)

        """
        batches = list(batches)
        if not batches:
            raise ValueError("batches: expected at least one batch, got none")
        for batch in batches:
            if not isinstance(batch, EventBatch):
                raise TypeError(f"batches: expected EventBatches, got {type(batch).__name__}")
        (steps, _, inputs), device = batches[0].shape, batches[0].device
        for k, batch in enumerate(batches):
            if (batch.shape[0], batch.shape[2]) != (steps, inputs):
                raise ValueError(
                    f"batches: expected T = {steps} and K = {inputs}, as the first has, got shape {batch.shape} at {k}"
                )
            if batch.device != device:
                raise ValueError(f"batches: expected device {device}, as the first has, got {batch.device} at {k}")
        values = lengths = None
        if any(batch.values is not None for batch in batches):
            values = torch.cat([batch._values_or_ones(torch.float32) for batch in batches])
        if any(batch.lengths is not None for batch in batches):
            lengths = torch.cat([batch._lengths_or_steps() for batch in batches])
        offsets = _offsets(torch.cat([batch.offsets.diff() for batch in batches]))
        indices = torch.cat([batch.indices for batch in batches])
        return cls._trusted(offsets, indices, values, (steps, sum(map(len, batches)), inputs), lengths)

    def to_dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dense tensor: each cell the sum of its events, 0 where there are none.

        Args:
            dtype: a floating-point dtype.

        Returns:
            (T, B, K), contiguous, on this device; gradients flow to the values.

        Raises:
            TypeError: ``dtype`` is not a floating-point dtype.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> x = (torch.arange(24.0).reshape(2, 3, 4) % 3 == 0).float()
            >>> torch.equal(EventBatch.from_dense(x).to_dense(), x)
            True

        """
        if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(f"dtype: expected a floating-point dtype, got {dtype}")
        steps, batch, inputs = self.shape
        dense_rows = torch.arange(steps * batch, device=self.device).view(steps, batch).t().flatten()
        cells = dense_rows.repeat_interleave(self.offsets.diff()) * inputs + self.indices
        dense = torch.zeros(steps * batch * inputs, dtype=dtype, device=self.device)
        return dense.index_add(0, cells, self._values_or_ones(dtype).to(dtype)).view(self.shape)

    def __len__(self) -> int:
        return self.shape[1]

    def __iter__(self) -> Iterator[EventBatch]:
        return (self[sample] for sample in range(len(self)))

    def __getitem__(self, samples: SupportsIndex | slice | Sequence[int] | Array) -> EventBatch:
        if isinstance(samples, slice):
            chosen = range(*samples.indices(len(self)))
            if chosen.step == 1:
                return self._slice(chosen.start, max(chosen.start, chosen.stop))
            return self._gather(torch.tensor(chosen, dtype=torch.int64, device=self.device))
        if isinstance(samples, Sequence) or (isinstance(samples, Tensor | np.ndarray) and samples.ndim > 0):
            return self._gather(self._check_samples(samples))
        try:
            sample = operator.index(samples)
        except TypeError:
            got = type(samples).__name__
            raise TypeError(f"samples: expected an int, a slice, or a list or tensor of ints, got {got}") from None
        if not -len(self) <= sample < len(self):
            raise IndexError(f"samples: expected a value in [{-len(self)}, {len(self)}), got {sample}")
        sample %= len(self)
        return self._slice(sample, sample + 1)

    def _check_samples(self, samples: Sequence[int] | Array) -> Tensor:
        """Sample numbers in [0, B), from some in [-B, B)."""
        numbers = as_integers("samples", samples, self.device)
        outside = _first((numbers < -len(self)) | (numbers >= len(self)))
        if outside is not None:
            raise IndexError(f"samples: expected values in [{-len(self)}, {len(self)}), got {int(numbers[outside])}")
        return torch.where(numbers < 0, numbers + len(self), numbers)

    def _slice(self, start: int, stop: int) -> EventBatch:
        """Samples start to stop; indices, values and lengths are views of this batch's."""
        steps, _, inputs = self.shape
        offsets = self.offsets[start * steps : stop * steps + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return self._trusted(
            offsets - first,
            self.indices[first:last],
            None if self.values is None else self.values[first:last],
            (steps, stop - start, inputs),
            None if self.lengths is None else self.lengths[start:stop],
        )

    def _gather(self, samples: Tensor) -> EventBatch:
        steps, batch, inputs = self.shape
        counts = self.offsets.diff().view(batch, steps)[samples]
        offsets = _offsets(counts.flatten())
        moved = self.offsets[samples * steps] - offsets[torch.arange(len(samples), device=self.device) * steps]
        events = torch.arange(int(offsets[-1]), device=self.device) + moved.repeat_interleave(counts.sum(1))
        return self._trusted(
            offsets,
            self.indices[events],
            None if self.values is None else self.values[events],
            (steps, len(samples), inputs),
            None if self.lengths is None else self.lengths[samples],
        )

    @property
    def num_events(self) -> int:
        """The number of events."""
        return self.indices.numel()

    @property
    def density(self) -> float:
        """Events per cell of the shape, 0 where it has no cells."""
        steps, batch, inputs = self.shape
        return self.num_events / max(steps * batch * inputs, 1)

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(x.numel() * x.element_size() for x in self._tensors() if x is not None)

    @property
    def device(self) -> torch.device:
        """The device of all its tensors."""
        return self.offsets.device

    def to(self, device: torch.device | str | int) -> EventBatch:
        """The batch on another device; tensors that are there already are shared.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> EventBatch.from_dense(torch.ones(1, 1, 1)).to("cpu").device
            device(type='cpu')

        """
        return self._map(lambda x: x.to(device))

    def pin_memory(self) -> EventBatch:
        """The batch in page-locked memory, which a GPU reads faster; a DataLoader with ``pin_memory=True`` calls it."""
        return self._map(Tensor.pin_memory)

    def __repr__(self) -> str:
        values = None if self.values is None else self.values.dtype
        lengths = None if self.lengths is None else self.lengths.dtype
        return (
            f"EventBatch(shape={self.shape}, num_events={self.num_events}, values={values}, lengths={lengths}, "
            f"device={self.device})"
        )

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        return self.offsets, self.indices, self.values, self.lengths

    def _map(self, function: Callable[[Tensor], Tensor]) -> EventBatch:
        offsets, indices = function(self.offsets), function(self.indices)
        values, lengths = (None if x is None else function(x) for x in (self.values, self.lengths))
        return self._trusted(offsets, indices, values, self.shape, lengths)

    def _sample_starts(self) -> Tensor:
        """Where in ``offsets`` each sample starts, and the last ends: (B + 1,)."""
        steps, batch, _ = self.shape
        return torch.arange(batch + 1, device=self.device) * steps

    def _values_or_ones(self, dtype: torch.dtype) -> Tensor:
        return torch.ones(self.num_events, dtype=dtype, device=self.device) if self.values is None else self.values

    def _lengths_or_steps(self) -> Tensor:
        if self.lengths is not None:
            return self.lengths
        return torch.full((len(self),), self.shape[0], dtype=torch.int64, device=self.device)


def as_integers(name: str, x: Sequence[int] | Array, device: torch.device) -> Tensor:
    """A vector of any integers as int64 on the device, contiguous; for this package's own arguments."""
    try:
        numbers = torch.as_tensor(_as_tensor(name, x) if isinstance(x, np.ndarray) else x, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected integers below 2^63, got {type(x).__name__}: {error}") from None
    if numbers.numel() == 0:
        numbers = numbers.to(torch.int64)
    if numbers.dtype == torch.bool or numbers.is_floating_point() or numbers.is_complex():
        raise TypeError(f"{name}: expected integers, got {numbers.dtype}")
    if numbers.dim() != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {tuple(numbers.shape)}")
    return numbers.to(torch.int64).contiguous()


def _as_tensor(name: str, x: Array) -> Tensor:
    """A tensor, or one over the memory of a NumPy array where it can be shared."""
    if isinstance(x, np.ndarray):
        try:
            return torch.from_numpy(np.require(x, dtype=x.dtype.newbyteorder("="), requirements=["C", "W"]))
        except TypeError:
            raise TypeError(f"{name}: expected a dtype that torch has, got {x.dtype}") from None
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor or a NumPy array, got {type(x).__name__}")
    if x.layout != torch.strided:
        raise ValueError(f"{name}: expected a dense tensor, got layout {x.layout}")
    return x


def _vector(
    name: str, x: Array, size: int | None, size_name: str, *dtypes: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """Check a vector of a given size, of any if None, and make it contiguous."""
    x = _as_tensor(name, x)
    if x.dtype not in dtypes:
        raise TypeError(f"{name}: expected dtype {' or '.join(map(str, dtypes))}, got {x.dtype}")
    if x.dim() != 1 or size not in (None, x.numel()):
        expected = f"({size_name},)" if size is None else f"({size_name},) = ({size},)"
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(x.shape)}")
    if device not in (None, x.device):
        raise ValueError(f"{name}: expected device {device}, as offsets has, got {x.device}")
    return x.contiguous()


def _check_shape(shape: Sequence[int], name: str = "shape") -> Shape:
    try:
        steps, batch, inputs = map(operator.index, shape)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: expected three integers (T, B, K), got {shape!r}") from None
    if min(steps, batch, inputs) < 0 or inputs > _MAX_INPUTS:
        raise ValueError(f"{name}: expected (T, B, K) of at least 0, K at most 2^31, got {(steps, batch, inputs)}")
    return steps, batch, inputs


def _check_lengths(lengths: Array, shape: Shape, device: torch.device) -> Tensor:
    steps, batch, _ = shape
    lengths = _vector("lengths", lengths, batch, "B", torch.int64, device=device)
    sample = _first((lengths < 0) | (lengths > steps))
    if sample is not None:
        raise ValueError(f"lengths: expected values in [0, {steps}], got {int(lengths[sample])} for sample {sample}")
    return lengths


def _offsets(counts: Tensor) -> Tensor:
    """The offsets of rows with so many events each."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _first(holds: Tensor) -> int | None:
    """The first position at which it holds, if there is one."""
    return int(holds.nonzero()[0]) if holds.any() else None
