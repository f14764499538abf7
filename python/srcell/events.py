"""EventBatch: spikes in time as row-compressed events instead of dense tensors.

Encoders and data sets make batches and the layers run on them; this module must never know where events come from or
what a network does with them.
"""

from __future__ import annotations

import numbers as numeric
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, SupportsIndex, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import _pytree as fx_pytree
from torch.utils import _pytree as pytree

from .ops import faults
from .ops._memory import contiguous, has_memory

__all__ = ["EventBatch"]

Array: TypeAlias = Tensor | NDArray[Any]
Integers: TypeAlias = Array | Sequence[int]
Shape: TypeAlias = tuple[int, int, int]

_TENSORS = ("offsets", "indices", "values", "lengths")
_MAX_INPUTS = 2**31
_MAX_STEPS = 2**31 - 1
_MAX_SIZE = 2**63 - 1


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
    integer tensor) batches of several. Unpickling validates anew.

    Batches are equal if all that they hold is: shape, device, dtypes and every element. What merely means the same is
    not equal: a row's events in another order, ones beside absent values, lengths of T beside absent lengths. There is
    no hash.

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
        self.lengths = None
        if lengths is not None:
            self.lengths = _vector("lengths", lengths, batch, "B", torch.int64, device=device)
        fault = _find_fault(self.offsets, self.indices, self.values, self.lengths, self.shape)
        if fault is not None:
            raise ValueError(self._describe(*fault))

    @classmethod
    def _trusted(
        cls, offsets: Tensor, indices: Tensor, values: Tensor | None, shape: Shape, lengths: Tensor | None
    ) -> EventBatch:
        """A batch of parts that are valid by construction."""
        batch = cls.__new__(cls)
        batch.offsets, batch.indices, batch.values = offsets, indices, values
        batch.shape, batch.lengths = shape, lengths
        return batch

    def _describe(self, fault: str, at: int) -> str:
        """The message for what a search for faults found in this batch."""
        if fault == "first offset":
            return f"offsets: expected the first to be 0, got {int(self.offsets[0])}"
        if fault == "descent":
            before, after = self.offsets[at - 1 : at + 1].tolist()
            return f"offsets: expected ascending values, got {before} and then {after} at position {at}"
        if fault == "last offset":
            last = int(self.offsets[-1])
            return f"offsets: expected the last to be {self.num_events}, the number of indices, got {last}"
        if fault == "index":
            return f"indices: expected values in [0, {self.shape[2]}), got {int(self.indices[at])} at position {at}"
        if fault == "nan":
            return f"values: expected numbers, got nan at position {at}"
        assert self.lengths is not None
        length = int(self.lengths[at])
        if fault == "length":
            return _wrong_length(length, at, self.shape[0])
        return f"lengths: expected no events past a sample's length, got some past the {length} of sample {at}"

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
        require_values("x", x)
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
    def from_events(
        cls,
        times: Array | Sequence[float],
        indices: Integers | None = None,
        *,
        x: Integers | None = None,
        y: Integers | None = None,
        polarity: Integers | None = None,
        bin_width: float,
        inputs: int | None = None,
        sensor_size: Sequence[int] | None = None,
        steps: int | None = None,
        prefix: int = 0,
        count: Literal["once", "all"] = "once",
    ) -> EventBatch:
        """One recording of an event camera, or of any other source of timed events, in bins of time.

        What happens at time t is an event of step ``prefix + floor(t / bin_width)``. Its input is given by ``indices``
        and ``inputs``, or by ``x``, ``y`` and ``sensor_size``, with or without ``polarity``; it is then
        ``(polarity * height + y) * width + x``, so that a step is a frame (polarities, height, width), flattened.

        Args:
            times: (events,), numbers of at least 0 that do not descend, counted from the recording's start, in any
                unit. Integers in bins of an integer width are binned exactly, others as float64.
            indices: (events,), integers in [0, inputs).
            x: (events,), integers in [0, width): the column of the pixel.
            y: (events,), integers in [0, height): its row.
            polarity: (events,), bools, or integers that are 0 or 1.
            bin_width: what a step lasts, in the unit of ``times``; above 0.
            inputs: K, at most 2^31.
            sensor_size: (height, width); K is height * width, twice that with a polarity.
            steps: bins to keep, past which events are left out; as many as the last event needs if absent.
            prefix: silent steps before the first bin.
            count: "once" makes one event of several of one input in one bin; with "all" they stay and add up.

        Returns:
            A batch of shape (prefix + steps, 1, K) on the device of ``times``, without values and lengths; each row
            ascends. ``cat`` and ``srcell.data.collate`` join several.

        Raises:
            TypeError: an argument of the wrong type or dtype, or not just one way of giving inputs.
            ValueError: a wrong shape or value; the message names the argument, what was expected and what came.

        Example:
            >>> from srcell import EventBatch
            >>> recording = EventBatch.from_events(
            ...     [150, 180, 2300], x=[3, 3, 0], y=[1, 1, 0], polarity=[1, 1, 0], bin_width=1000, sensor_size=(2, 4)
            ... )
            >>> recording.shape
            (3, 1, 16)
            >>> recording.offsets.tolist(), recording.indices.tolist()
            ([0, 1, 1, 2], [15, 0])

        """
        times = _check_times(times)
        index, total = _event_inputs(times, indices, x, y, polarity, inputs, sensor_size)
        prefix = as_int("prefix", prefix, _MAX_STEPS)
        bins = _bins(times, bin_width)
        if steps is None:
            steps = int(bins[-1]) + 1 if len(bins) else 0
            if prefix + steps > _MAX_STEPS:
                last = times[-1].item()
                raise ValueError(f"bin_width: expected at most 2^31 - 1 steps, got {bin_width} for times up to {last}")
        else:
            steps = as_int("steps", steps, _MAX_STEPS - prefix)
            bins = bins[bins < steps]
        check_word("count", count, ("once", "all"))
        cells = (prefix + bins) * total + index[: len(bins)]
        cells = cells.unique() if count == "once" else cells.sort().values
        row_starts = torch.arange(prefix + steps + 1, device=times.device) * total
        offsets = torch.searchsorted(cells, row_starts)
        return cls._trusted(offsets, (cells % max(total, 1)).to(torch.int32), None, (prefix + steps, 1, total), None)

    @classmethod
    def from_sparse_csr(cls, csr: Tensor, *, shape: Sequence[int], lengths: Array | None = None) -> EventBatch:
        r"""The events of a sparse CSR tensor, whose row ``b * T + t`` is step t of sample b.

        Args:
            csr: (B\*T, K), layout ``torch.sparse_csr``, float32 or float64, not NaN; a 0 that it stores is an event.
            shape: (T, B, K).
            lengths: (B,), int64 in [0, T], past which there are no events.

        Returns:
            A batch on csr's device. Its values are absent if all are 1 and csr requires no gradient; otherwise
            gradients flow through them to csr.

        Raises:
            TypeError: an argument of the wrong type or dtype.
            ValueError: a wrong layout, shape or value.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> batch = EventBatch.from_dense(torch.ones(5, 2, 3))
            >>> EventBatch.from_sparse_csr(batch.to_sparse_csr(), shape=batch.shape) == batch
            True

        """
        steps, batch, inputs = _check_shape(shape)
        if not isinstance(csr, Tensor):
            raise TypeError(f"csr: expected a tensor, got {type(csr).__name__}")
        if csr.layout != torch.sparse_csr:
            raise ValueError(f"csr: expected layout torch.sparse_csr, got {csr.layout}")
        require_values("csr", csr.values())
        if csr.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"csr: expected dtype torch.float32 or torch.float64, got {csr.dtype}")
        if tuple(csr.shape) != (batch * steps, inputs):
            raise ValueError(f"csr: expected shape (B*T, K) = {(batch * steps, inputs)}, got {tuple(csr.shape)}")
        offsets, indices, values = csr.crow_indices(), csr.col_indices(), csr.values()
        try:
            torch.sparse_csr_tensor(offsets, indices, values.detach(), csr.shape, check_invariants=True)
        except RuntimeError as error:
            raise ValueError(f"csr: expected a valid CSR tensor, got one for which {error}") from None
        kept = values if values.requires_grad or not bool((values == 1).all()) else None
        return cls(offsets.to(torch.int64), indices.to(torch.int32), kept, shape=shape, lengths=lengths)

    @classmethod
    def cat(cls, batches: Iterable[EventBatch], *, steps: int | None = None) -> EventBatch:
        """Join batches of the same K and device, sample after sample.

        Lengths and values are kept. Where only some batches have lengths, the others get their T; where only some have
        values, the others get ones; float32 beside float64 values become float64.

        Args:
            batches: at least one batch.
            steps: T of the result; shorter batches get silent steps at their end, and lengths that leave these out. All
                must have the same T if absent.

        Raises:
            TypeError: something else than a batch.
            ValueError: no batch, or batches that differ in K or device, or in T, or have a T above ``steps``.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> batch = EventBatch.from_dense(torch.ones(5, 2, 3))
            >>> EventBatch.cat([batch, batch[1]]).shape
            (5, 3, 3)
            >>> longer = EventBatch.cat([batch, EventBatch.from_dense(torch.ones(7, 1, 3))], steps=7)
            >>> longer.shape, longer.lengths.tolist()
            ((7, 3, 3), [5, 5, 7])

        """
        try:
            iterator = iter(batches)
        except (TypeError, RuntimeError):
            raise TypeError(f"batches: expected EventBatches, got {type(batches).__name__}") from None
        batches = list(iterator)
        if not batches:
            raise ValueError("batches: expected at least one batch, got none")
        for batch in batches:
            if not isinstance(batch, EventBatch):
                raise TypeError(f"batches: expected EventBatches, got {type(batch).__name__}")
        (first_steps, _, inputs), device = batches[0].shape, batches[0].device
        shortest, steps = (first_steps, first_steps) if steps is None else (0, as_int("steps", steps, _MAX_SIZE))
        for k, batch in enumerate(batches):
            if not shortest <= batch.shape[0] <= steps or batch.shape[2] != inputs:
                expected = f"T = {steps}" if shortest == steps else f"T of at most {steps}"
                raise ValueError(
                    f"batches: expected {expected} and K = {inputs}, as the first has, got shape {batch.shape} at {k}"
                )
            if batch.device != device:
                raise ValueError(f"batches: expected device {device}, as the first has, got {batch.device} at {k}")
        values = lengths = None
        if any(batch.values is not None for batch in batches):
            values = torch.cat([batch._values_or_ones(torch.float32) for batch in batches])
        if any(batch.lengths is not None or batch.shape[0] < steps for batch in batches):
            lengths = torch.cat([batch._lengths_or_steps() for batch in batches])
        offsets = _offsets(torch.cat([batch._counts(steps) for batch in batches]))
        indices = torch.cat([batch.indices for batch in batches])
        shape = _check_shape((steps, sum(batch.shape[1] for batch in batches), inputs), "batches")
        return cls._trusted(offsets, indices, values, shape, lengths)

    def truncate(self, steps: int) -> EventBatch:
        """The first steps of every sample; what happens later is left out, and longer lengths become ``steps``.

        Args:
            steps: T of the result, in [0, T].

        Raises:
            TypeError: ``steps`` is not an integer.
            ValueError: it is outside its range.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> batch = EventBatch.from_dense(torch.ones(5, 2, 3))
            >>> batch.truncate(2)
            EventBatch(shape=(2, 2, 3), num_events=12, values=None, lengths=None, device=cpu)

        """
        own, samples, inputs = self.shape
        steps = as_int("steps", steps, own)
        counts = self.offsets.diff().view(samples, own)
        kept = (torch.arange(own, device=self.device) < steps).repeat(samples).repeat_interleave(counts.flatten())
        return self._trusted(
            _offsets(counts[:, :steps].flatten()),
            self.indices[kept],
            None if self.values is None else self.values[kept],
            (steps, samples, inputs),
            None if self.lengths is None else self.lengths.clamp(max=steps),
        )

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
        _check_float_dtype(dtype)
        steps, batch, inputs = self.shape
        dense_rows = torch.arange(steps * batch, device=self.device).view(steps, batch).t().flatten()
        cells = dense_rows.repeat_interleave(self.offsets.diff()) * inputs + self.indices
        dense = torch.zeros(steps * batch * inputs, dtype=dtype, device=self.device)
        return dense.index_add(0, cells, self._values_or_ones(dtype).to(dtype)).view(self.shape)

    def to_sparse_csr(self, dtype: torch.dtype = torch.float32) -> Tensor:
        r"""The sparse CSR tensor whose row ``b * T + t`` is step t of sample b; several events of a cell become one.

        Args:
            dtype: a floating-point dtype.

        Returns:
            (B\*T, K), with int64 indices that ascend within each row, on this device; gradients flow to the values.

        Raises:
            TypeError: ``dtype`` is not a floating-point dtype.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> csr = EventBatch.from_dense(torch.ones(1, 2, 3)).to_sparse_csr()
            >>> (csr @ torch.ones(3, 1)).flatten()
            tensor([3., 3.])

        """
        _check_float_dtype(dtype)
        steps, batch, inputs = self.shape
        rows = torch.arange(steps * batch, device=self.device).repeat_interleave(self.offsets.diff())
        ascends = bool(((self.indices[1:] > self.indices[:-1]) | (rows[1:] > rows[:-1])).all())
        coo = torch.sparse_coo_tensor(
            torch.stack([rows, self.indices.to(torch.int64)]),
            self._values_or_ones(dtype).to(dtype),
            (steps * batch, inputs),
            check_invariants=False,
            is_coalesced=ascends,
        )
        return coo.coalesce().to_sparse_csr()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EventBatch):
            return NotImplemented
        return (
            self.shape == other.shape
            and self.device == other.device
            and all(map(_same, self._tensors(), other._tensors()))
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        EventBatch.__init__(self, **{name: state[name] for name in ("shape", *_TENSORS)})
        self.__dict__.update((name, value) for name, value in state.items() if name not in self.__dict__)

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
        except (TypeError, RuntimeError):
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
    def num_steps(self) -> int:
        """The steps of all samples together, of each its length, T where it has none."""
        return int(self._lengths_or_steps().sum())

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

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> EventBatch:
        """The batch on another device; tensors that are there already are shared.

        With ``non_blocking`` and pinned memory the host does not wait for the copies.

        Raises:
            TypeError: ``device`` is no name of a device.
            ValueError: it names none that is there.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> EventBatch.from_dense(torch.ones(1, 1, 1)).to("cpu").device
            device(type='cpu')

        """
        place = present_device(device)
        return self._map(lambda x: x.to(place, non_blocking=non_blocking))

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

    def _counts(self, steps: int) -> Tensor:
        """Events of each row, if each sample had so many steps, at least T: (B * steps,)."""
        own, batch, _ = self.shape
        counts = self.offsets.diff()
        if own == steps:
            return counts
        return torch.nn.functional.pad(counts.view(batch, own), (0, steps - own)).flatten()

    def _values_or_ones(self, dtype: torch.dtype) -> Tensor:
        return torch.ones(self.num_events, dtype=dtype, device=self.device) if self.values is None else self.values

    def _lengths_or_steps(self) -> Tensor:
        if self.lengths is not None:
            return self.lengths
        return torch.full((len(self),), self.shape[0], dtype=torch.int64, device=self.device)


_Context: TypeAlias = list[list[Any]]  # shape and names; lists, as they are again after JSON


def _flatten(batch: EventBatch) -> tuple[list[Tensor], _Context]:
    names = [name for name in _TENSORS if getattr(batch, name) is not None]
    return [getattr(batch, name) for name in names], [list(batch.shape), names]


def _flatten_with_keys(batch: EventBatch) -> tuple[list[tuple[pytree.KeyEntry, Tensor]], _Context]:
    tensors, context = _flatten(batch)
    return [(pytree.GetAttrKey(name), x) for name, x in zip(context[1], tensors, strict=True)], context


def _unflatten(tensors: Iterable[Any], context: _Context) -> EventBatch:
    shape, names = context
    parts = dict(zip(names, tensors, strict=True))
    steps, batch, inputs = shape
    return EventBatch._trusted(
        parts["offsets"], parts["indices"], parts.get("values"), (steps, batch, inputs), parts.get("lengths")
    )


# Its tensors are what torch's transformations of nested containers see of it.
pytree.register_pytree_node(
    EventBatch,
    _flatten,
    _unflatten,
    serialized_type_name="srcell.EventBatch",
    flatten_with_keys_fn=_flatten_with_keys,
)
# torch.export of 2.4 asks for this as well.
fx_pytree.register_pytree_flatten_spec(EventBatch, lambda batch, spec: [getattr(batch, x) for x in spec.context[1]])
torch.serialization.add_safe_globals([EventBatch])


def _find_fault(
    offsets: Tensor, indices: Tensor, values: Tensor | None, lengths: Tensor | None, shape: Shape
) -> tuple[str, int] | None:
    """What is wrong first with the parts of a batch, and where; nothing where they hold no values to look at."""
    if not all(has_memory(x) for x in (offsets, indices, values, lengths) if x is not None):
        return None
    if offsets.device.type != "cpu":
        return find_event_fault(offsets, indices, values, lengths, shape)
    steps, batch, inputs = shape
    found = faults.find_event_fault(offsets, indices, values, lengths, steps=steps, batch=batch, inputs=inputs)
    number, position = found.tolist()
    return None if number < 0 else (faults.FAULTS[number], position)


def find_event_fault(
    offsets: Tensor, indices: Tensor, values: Tensor | None, lengths: Tensor | None, shape: Shape
) -> tuple[str, int] | None:
    """The operator ``find_event_fault`` in torch's own, for the devices for which there is no compiled one."""
    steps, batch, inputs = shape
    sample = None if lengths is None else _first((lengths < 0) | (lengths > steps))
    if sample is not None:
        return "length", sample
    if int(offsets[0]) != 0:
        return "first offset", 0
    row = _first(offsets[1:] < offsets[:-1])
    if row is not None:
        return "descent", row + 1
    if int(offsets[-1]) != len(indices):
        return "last offset", batch * steps
    event = _first((indices < 0) | (indices > inputs - 1))
    if event is not None:
        return "index", event
    event = None if values is None else _first(values.isnan())
    if event is not None:
        return "nan", event
    if lengths is not None:
        starts = torch.arange(batch + 1, device=offsets.device) * steps
        sample = _first(offsets[starts[:-1] + lengths] < offsets[starts[1:]])
    return None if sample is None else ("past length", sample)


def as_int(name: str, value: SupportsIndex, maximum: int, *, minimum: int = 0) -> int:
    """An integer in [minimum, maximum]; for this package's own arguments."""
    try:
        number = operator.index(value)
    except (TypeError, RuntimeError):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}") from None
    if not minimum <= number <= maximum:
        raise ValueError(f"{name}: expected an int in [{minimum}, {maximum}], got {number}")
    return number


def as_float(name: str, value: float) -> float:
    """A real number as a float; for this package's own arguments."""
    if not isinstance(value, numeric.Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a float, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a finite value, got one beyond every float") from None


def check_word(name: str, value: str, words: Sequence[str]) -> None:
    """Raise where a value is none of the words; for the package's own."""
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name}: expected one of {', '.join(words)}, got {value!r}")


def check_bool(name: str, value: bool) -> None:
    """Raise where a value is neither True nor False; for the package's own."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")


def require_dense(name: str, x: Tensor) -> None:
    """Raise where the elements of a tensor do not lie in its memory one by one; for the package's own."""
    if x.layout != torch.strided or x.is_nested:
        raise ValueError(f"{name}: expected a dense tensor, got {'a nested one' if x.is_nested else x.layout}")
    if x.is_quantized:
        raise TypeError(f"{name}: expected a tensor that is not quantized, got {x.dtype}")


def require_values(name: str, x: Tensor) -> None:
    """Raise where what is made depends on values that there are not, as of meta and fake tensors; for the package's
    own.
    """
    if not has_memory(x):
        got = "one on meta" if x.is_meta else f"a {type(x).__name__} without memory on {x.device}"
        raise ValueError(f"{name}: expected a tensor that holds values, got {got}")


def present_device(device: torch.device | str | int) -> torch.device:
    """A device that torch knows and this machine has; for the package's own."""
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        reason = str(error).partition("\n")[0]
        raise kind(f"device: expected one that is there, got {device!r}: {reason}") from None
    return place


def as_integers(name: str, x: Integers, device: torch.device, *, bools: bool = False) -> Tensor:
    """A vector of any integers, of bools too if asked, as int64 on the device, contiguous; for the package's own."""
    numbers = _as_numbers(name, x, "integers below 2^63", device)
    refused = numbers.is_floating_point() or numbers.is_complex() or numbers.is_quantized
    if refused or (numbers.dtype == torch.bool and not bools):
        raise TypeError(f"{name}: expected integers, got {numbers.dtype}")
    _check_one_dimension(name, numbers)
    return _as_kernels_read(numbers.to(torch.int64))


def _as_numbers(name: str, x: Array | Sequence[float], expected: str, device: torch.device) -> Tensor:
    """Numbers of any dtype; int64 where there are none, float64 from Python's floats."""
    if isinstance(x, Tensor | np.ndarray):
        tensor = _as_tensor(name, x)
        require_values(name, tensor)
        if tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any()):
            raise ValueError(f"{name}: expected {expected}, got one that is not")
        numbers = tensor.to(device)
    else:
        try:
            numbers = torch.as_tensor(x, device=device)
            if numbers.is_floating_point():
                numbers = torch.as_tensor(x, dtype=torch.float64, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name}: expected {expected}, got {type(x).__name__}: {error}") from None
    return numbers if numbers.numel() else numbers.to(torch.int64)


def _check_one_dimension(name: str, x: Tensor) -> None:
    if x.dim() != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {tuple(x.shape)}")


def _check_times(times: Array | Sequence[float]) -> Tensor:
    """Times of events as int64 or float64."""
    device = times.device if isinstance(times, Tensor) else torch.device("cpu")
    numbers = _as_numbers("times", times, "numbers, integers below 2^63", device)
    if numbers.dtype == torch.bool or numbers.is_complex() or numbers.is_quantized:
        raise TypeError(f"times: expected real numbers, got {numbers.dtype}")
    _check_one_dimension("times", numbers)
    numbers = numbers.detach().to(torch.float64 if numbers.is_floating_point() else torch.int64)
    event = _first(~numbers.isfinite() | (numbers < 0))
    if event is not None:
        got = numbers[event].item()
        raise ValueError(f"times: expected finite numbers of at least 0, got {got} at position {event}")
    event = _first(numbers[1:] < numbers[:-1])
    if event is not None:
        before, after = numbers[event : event + 2].tolist()
        raise ValueError(f"times: expected no descent, got {before} and then {after} at position {event + 1}")
    return numbers


def _bins(times: Tensor, bin_width: float) -> Tensor:
    """The bin of each time, as int64; past the most steps that there may be, any such bin."""
    if not isinstance(bin_width, int | float | np.integer | np.floating):
        raise TypeError(f"bin_width: expected a number, got {type(bin_width).__name__}")
    if not 0 < bin_width < 2**63:
        raise ValueError(f"bin_width: expected a number above 0 and below 2^63, got {bin_width}")
    if isinstance(bin_width, int | np.integer) and not times.is_floating_point():
        return times // int(bin_width)
    return (times.to(torch.float64) / float(bin_width)).clamp(max=_MAX_STEPS).to(torch.int64)


def _event_inputs(
    times: Tensor,
    indices: Integers | None,
    x: Integers | None,
    y: Integers | None,
    polarity: Integers | None,
    inputs: int | None,
    sensor_size: Sequence[int] | None,
) -> tuple[Tensor, int]:
    """The input of each event, given in one of two ways, and K."""
    pixels = {"x": x, "y": y, "polarity": polarity, "sensor_size": sensor_size}
    if indices is not None and inputs is not None and all(given is None for given in pixels.values()):
        total = as_int("inputs", inputs, _MAX_INPUTS)
        return _below("indices", indices, total, times), total
    if indices is None and inputs is None and x is not None and y is not None and sensor_size is not None:
        height, width = _check_sensor_size(sensor_size)
        index = _below("y", y, height, times) * width + _below("x", x, width, times)
        if polarity is None:
            return index, height * width
        return _below("polarity", polarity, 2, times, bools=True) * (height * width) + index, 2 * height * width
    arguments = {"indices": indices, "inputs": inputs, **pixels}
    got = ", ".join(name for name, given in arguments.items() if given is not None) or "none of them"
    raise TypeError(f"indices: expected either indices and inputs, or x, y and sensor_size, got {got}")


def _check_sensor_size(sensor_size: Sequence[int]) -> tuple[int, int]:
    height, width = _indices("sensor_size", sensor_size, 2, "two integers (height, width)")
    if min(height, width) < 0 or 2 * height * width > _MAX_INPUTS:
        got = (height, width)
        raise ValueError(f"sensor_size: expected (height, width) of at least 0, 2^30 pixels at most, got {got}")
    return height, width


def _below(name: str, x: Integers, bound: int, times: Tensor, *, bools: bool = False) -> Tensor:
    """A vector as long as times, of integers in [0, bound)."""
    numbers = as_integers(name, x, times.device, bools=bools)
    if len(numbers) != len(times):
        raise ValueError(f"{name}: expected shape (events,) = ({len(times)},), as times has, got ({len(numbers)},)")
    event = _first((numbers < 0) | (numbers >= bound))
    if event is not None:
        raise ValueError(f"{name}: expected values in [0, {bound}), got {int(numbers[event])} at position {event}")
    return numbers


def _as_tensor(name: str, x: Array) -> Tensor:
    """A tensor, or one over the memory of a NumPy array where it can be shared."""
    if isinstance(x, np.ndarray):
        try:
            return torch.from_numpy(np.require(x, dtype=x.dtype.newbyteorder("="), requirements=["C", "W", "A"]))
        except TypeError:
            raise TypeError(f"{name}: expected a dtype that torch has, got {x.dtype}") from None
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor or a NumPy array, got {type(x).__name__}")
    require_dense(name, x)
    return x


def _vector(
    name: str, x: Array, size: int | None, size_name: str, *dtypes: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """Check a vector of a given size, of any if None, and make it contiguous and aligned."""
    x = _as_tensor(name, x)
    if x.dtype not in dtypes:
        raise TypeError(f"{name}: expected dtype {' or '.join(map(str, dtypes))}, got {x.dtype}")
    if x.dim() != 1 or size not in (None, x.numel()):
        expected = f"({size_name},)" if size is None else f"({size_name},) = ({size},)"
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(x.shape)}")
    if device not in (None, x.device):
        raise ValueError(f"{name}: expected device {device}, as offsets has, got {x.device}")
    return _as_kernels_read(x)


def _as_kernels_read(x: Tensor) -> Tensor:
    """The tensor, contiguous and aligned where it lies in memory."""
    return contiguous(x) if has_memory(x) else x.contiguous()


def _check_shape(shape: Sequence[int], name: str = "shape") -> Shape:
    steps, batch, inputs = _indices(name, shape, 3, "three integers (T, B, K)")
    if min(steps, batch, inputs) < 0 or inputs > _MAX_INPUTS:
        raise ValueError(f"{name}: expected (T, B, K) of at least 0, K at most 2^31, got {(steps, batch, inputs)}")
    if max(steps, batch) > _MAX_SIZE:
        raise ValueError(f"{name}: expected T and B below 2^63, got {(steps, batch, inputs)}")
    return steps, batch, inputs


def _indices(name: str, x: Sequence[int], count: int, expected: str) -> list[int]:
    try:
        numbers = list(map(operator.index, x))
    except (TypeError, RuntimeError):
        raise TypeError(f"{name}: expected {expected}, got {x!r}") from None
    if len(numbers) != count:
        raise ValueError(f"{name}: expected {expected}, got {x!r}")
    return numbers


def _check_lengths(lengths: Array, shape: Shape, device: torch.device) -> Tensor:
    steps, batch, _ = shape
    lengths = _vector("lengths", lengths, batch, "B", torch.int64, device=device)
    sample = _first((lengths < 0) | (lengths > steps))
    if sample is not None:
        raise ValueError(_wrong_length(int(lengths[sample]), sample, steps))
    return lengths


def _wrong_length(length: int, sample: int, steps: int) -> str:
    return f"lengths: expected values in [0, {steps}], got {length} for sample {sample}"


def _check_float_dtype(dtype: torch.dtype) -> None:
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype: expected a floating-point dtype, got {dtype}")


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two parts of batches on one device hold the same."""
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and torch.equal(a, b)


def _offsets(counts: Tensor) -> Tensor:
    """The offsets of rows with so many events each."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _first(holds: Tensor) -> int | None:
    """The first position at which it holds, if there is one."""
    return int(holds.nonzero()[0]) if holds.any() else None
