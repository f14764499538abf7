"""``EventBatch``: spikes over time as row-compressed events instead of dense tensors.

Encoders and data sets make batches and the layers run on them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._shared.arguments import as_int, has_memory, present_device, require_values
from .._shared.torch_private import has_tangent, register_pytree
from ..ops._cpu import empty
from ..ops._table import dtype_error, shape_error
from ..ops.encode import list_events
from .binning import binned, check_times, event_inputs
from .checks import (
    MAX_SIZE,
    Array,
    Integers,
    Shape,
    as_integers,
    as_tensor,
    as_vector,
    check_float_dtype,
    check_lengths,
    check_shape,
    first,
    offsets_of,
    same,
)
from .faults import describe_fault, find_fault

TENSORS = ("offsets", "indices", "values", "lengths")


class EventBatch:
    r"""Events of B samples over T steps of K inputs, in the row-compressed form of a CSR matrix.

    Row ``b * T + t`` holds the events of sample b at step t: ``indices[offsets[row]:offsets[row + 1]]``. So the events
    of a sample are contiguous, and concatenating samples gives a batch. The events of a row may be in any order, and
    several events of one input add up. Everything is validated once, at construction. Contiguous tensors and arrays are
    kept, not copied, and must not be altered afterwards, neither here nor where they come from.

    Args:
        offsets: (B\*T + 1,), int64, ascending from 0 to the number of events. Like ``indices``, ``values`` and
            ``lengths``, a tensor, a NumPy array, or an array of another library that has ``__dlpack__``.
        indices: (events,), int32 in [0, K): the input of each event.
        values: (events,), float32 or float64 and not NaN: the size of each event; if absent, all are 1. May require a
            gradient.
        shape: (T, B, K), each at least 0; K at most 2^31.
        lengths: (B,), int64 in [0, T]: number of steps of each sample, after which it has no events; if absent, all
            samples have T steps.

    ``offsets``, ``indices``, ``values``, ``lengths`` and ``shape`` are attributes. ``len()`` is B. Indexing selects
    samples: ``batch[2]`` and ``batch[-1]`` are batches of one, ``batch[1:3]`` and ``batch[[4, 0, 4]]`` (a list or an
    integer tensor) batches of several. Unpickling validates the batch again.

    Batches are equal if shape, device, dtypes and every element of their tensors are equal. So batches of the same
    meaning may be unequal: if the events of a row are in another order, or if one has values of 1 and the other none,
    or one has lengths of T and the other none. Batches are not hashable.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument and what was expected.

    Source: this project's definition of event batches.

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
        self.shape = check_shape(shape)
        steps, batch, _ = self.shape
        self.offsets = as_vector("offsets", offsets, batch * steps + 1, "B*T + 1", torch.int64)
        device = self.offsets.device
        self.indices = as_vector("indices", indices, None, "events", torch.int32, device=device)
        events = self.indices.numel()
        self.values = None
        if values is not None:
            self.values = as_vector("values", values, events, "events", torch.float32, torch.float64, device=device)
        self.lengths = None
        if lengths is not None:
            self.lengths = as_vector("lengths", lengths, batch, "B", torch.int64, device=device)
        parts = self.offsets, self.indices, self.values, self.shape, self.lengths
        fault = find_fault(parts)
        if fault is not None:
            raise ValueError(describe_fault(parts, *fault))

    @classmethod
    def _trusted(
        cls, offsets: Tensor, indices: Tensor, values: Tensor | None, shape: Shape, lengths: Tensor | None
    ) -> EventBatch:
        """Make a batch from parts that are valid by construction, without checking them."""
        batch = cls.__new__(cls)
        batch.offsets, batch.indices, batch.values = offsets, indices, values
        batch.shape, batch.lengths = shape, lengths
        return batch

    @classmethod
    def from_dense(cls, x: Array, lengths: Array | None = None) -> EventBatch:
        """Make a batch from the elements of a dense tensor that are not 0.

        Args:
            x: (T, B, K), bool, float32 or float64, without NaN.
            lengths: (B,), int64 in [0, T]: elements of x past a sample's length are ignored.

        Returns:
            A batch on x's device, each row ascending by input. Its values are absent if all are 1 and x requires
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
        x = as_tensor("x", x)
        require_values("x", x)
        if x.dtype not in (torch.bool, torch.float32, torch.float64):
            raise dtype_error("x", "bool, float32 or float64", x)
        if x.dim() != 3:
            one = ": of a single sample pass x[:, None]" if x.dim() == 2 else ""
            raise ValueError(f"x: expected shape (T, B, K), got {tuple(x.shape)}{one}")
        shape = check_shape(x.shape, "x")
        if lengths is not None:
            lengths = check_lengths(lengths, shape, x.device)
        offsets, indices, values = list_events(x.detach(), lengths)
        learns = (x.requires_grad and torch.is_grad_enabled()) or has_tangent([x])
        if learns or (values is not None and first(values.isnan()) is not None):
            rows = torch.arange(len(offsets) - 1, device=x.device).repeat_interleave(offsets.diff())
            step, sample = rows % max(shape[0], 1), rows // max(shape[0], 1)
            values = x[step, sample, indices]
            event = first(values.isnan())
            if event is not None:
                where = (int(step[event]), int(sample[event]), int(indices[event]))
                raise ValueError(f"x: expected numbers, got nan at {where}")
        return cls._trusted(offsets, indices, values, shape, lengths)

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
        """Bin a recording of an event camera, or of any other source of timed events, into steps of equal duration.

        An event at time t belongs to step ``prefix + floor(t / bin_width)``. Its input is given by ``indices`` and
        ``inputs``, or by ``x``, ``y`` and ``sensor_size``, with or without ``polarity``. The input of a pixel is
        ``(polarity * height + y) * width + x``, so that a step is a flattened frame (polarities, height, width).

        Args:
            times: (events,), numbers of at least 0 in ascending order (repeats allowed), from the recording's start,
                in any unit. Integer times with an integer ``bin_width`` are binned exactly, all others as float64.
            indices: (events,), integers in [0, inputs).
            x: (events,), integers in [0, width): the column of the pixel.
            y: (events,), integers in [0, height): the row of the pixel.
            polarity: (events,), bools, or integers that are 0 or 1.
            bin_width: duration of a step, in the unit of ``times``; above 0.
            inputs: K, at most 2^31.
            sensor_size: (height, width); K is height * width, or twice that with a polarity.
            steps: number of bins; later events are dropped. If absent, the last event is in the last bin.
            prefix: silent steps before the first bin.
            count: "once" merges several events of one input in one bin into one; "all" keeps them, and they add up.

        Returns:
            A batch of shape (prefix + steps, 1, K) on the device of ``times``, without values and lengths; each row
            ascends. ``cat`` and ``srcell.data.collate`` join several recordings.

        Raises:
            TypeError: an argument of the wrong type or dtype, or inputs given in neither form or in both.
            ValueError: a wrong shape or value; the message names the argument and what was expected.

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
        times = check_times(times)
        named = {"indices": indices, "inputs": inputs, "x": x, "y": y, "polarity": polarity, "sensor_size": sensor_size}
        index, total = event_inputs(times, {name: given for name, given in named.items() if given is not None})
        return cls._trusted(*binned(times, index, total, bin_width, steps, prefix, count))

    @classmethod
    def from_sparse_csr(cls, csr: Tensor, *, shape: Sequence[int], lengths: Array | None = None) -> EventBatch:
        r"""Make a batch from a sparse CSR tensor, whose row ``b * T + t`` is step t of sample b.

        Args:
            csr: (B\*T, K), layout ``torch.sparse_csr``, float32 or float64, not NaN; a stored 0 is an event.
            shape: (T, B, K).
            lengths: (B,), int64 in [0, T]: number of steps of each sample, after which it has no events.

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
        steps, batch, inputs = check_shape(shape)
        if not isinstance(csr, Tensor):
            raise TypeError(f"csr: expected a tensor, got {type(csr).__name__}")
        if csr.layout != torch.sparse_csr:
            raise ValueError(f"csr: expected layout torch.sparse_csr, got {csr.layout}")
        require_values("csr", csr.values())
        if csr.dtype not in (torch.float32, torch.float64):
            raise dtype_error("csr", "torch.float32 or torch.float64", csr)
        if tuple(csr.shape) != (batch * steps, inputs):
            raise shape_error("csr", f"(B*T, K) = {(batch * steps, inputs)}", csr.shape)
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

        Lengths and values are kept. If only some batches have lengths, the others get lengths of their T. If only some
        have values, the others get values of 1. If some values are float64, all become float64.

        Args:
            batches: at least one batch.
            steps: T of the result; shorter batches get silent steps at their end, which their lengths exclude. If
                absent, all must have the same T.

        Raises:
            TypeError: ``batches`` has an element that is not an EventBatch.
            ValueError: no batch, or batches that differ in K or device. Without ``steps``, batches that differ in T;
                with ``steps``, a batch with a larger T.

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
        shortest, steps = (first_steps, first_steps) if steps is None else (0, as_int("steps", steps, MAX_SIZE))
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
        counts = [x.offsets.diff() if x.shape[0] == steps else x._counts(steps).flatten() for x in batches]
        offsets = offsets_of(torch.cat(counts))
        indices = torch.cat([batch.indices for batch in batches])
        shape = check_shape((steps, sum(map(len, batches)), inputs), "batches")
        return cls._trusted(offsets, indices, values, shape, lengths)

    def truncate(self, steps: int) -> EventBatch:
        """Keep the first steps of every sample: drop later events, and reduce longer lengths to ``steps``.

        Args:
            steps: T of the result, in [0, T].

        Raises:
            TypeError: ``steps`` is not an integer.
            ValueError: ``steps`` is outside its range.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> batch = EventBatch.from_dense(torch.ones(5, 2, 3))
            >>> batch.truncate(2)
            EventBatch(shape=(2, 2, 3), num_events=12, values=None, lengths=None, device=cpu)

        """
        steps = as_int("steps", steps, self.shape[0])
        lengths = None if self.lengths is None else self.lengths.clamp(max=steps)
        return self._first_steps(torch.arange(len(self), device=self.device), steps, lengths)

    def to_dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the dense tensor: each element is the sum of its events, 0 without events.

        Args:
            dtype: a floating-point dtype.

        Returns:
            (T, B, K), contiguous, on the batch's device; gradients flow to the values.

        Raises:
            TypeError: ``dtype`` is not a floating-point dtype.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> x = (torch.arange(24.0).reshape(2, 3, 4) % 3 == 0).float()
            >>> torch.equal(EventBatch.from_dense(x).to_dense(), x)
            True

        """
        check_float_dtype(dtype)
        steps, batch, inputs = self.shape
        dense_rows = torch.arange(steps * batch, device=self.device).view(steps, batch).t().flatten()
        elements = dense_rows.repeat_interleave(self.offsets.diff()) * inputs + self.indices
        values = self._values_or_ones(dtype).to(dtype)
        if has_memory(values):
            zeros = empty(elements, *self.shape, dtype=dtype).zero_().flatten()
            return zeros.index_add_(0, elements, values).view(self.shape)
        dense = torch.zeros(steps * batch * inputs, dtype=dtype, device=self.device)
        return dense.index_add(0, elements, values).view(self.shape)  # under vmap

    def to_sparse_csr(self, dtype: torch.dtype = torch.float32) -> Tensor:
        r"""Return the sparse CSR tensor whose row ``b * T + t`` is step t of sample b; events of one element add up.

        Args:
            dtype: a floating-point dtype.

        Returns:
            (B\*T, K) on the batch's device, with int64 indices that ascend within each row; gradients flow to values.

        Raises:
            TypeError: ``dtype`` is not a floating-point dtype.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> csr = EventBatch.from_dense(torch.ones(1, 2, 3)).to_sparse_csr()
            >>> (csr @ torch.ones(3, 1)).flatten()
            tensor([3., 3.])

        """
        check_float_dtype(dtype)
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
        if self.shape != other.shape or self.device != other.device:
            return False
        return all(map(same, self._tensors(), other._tensors()))

    def __setstate__(self, state: dict[str, Any]) -> None:
        EventBatch.__init__(self, **{name: state[name] for name in ("shape", *TENSORS)})
        self.__dict__.update((name, value) for name, value in state.items() if name not in self.__dict__)

    def __len__(self) -> int:
        return self.shape[1]

    def __iter__(self) -> Iterator[EventBatch]:
        return (self[sample] for sample in range(len(self)))

    def __getitem__(self, samples: SupportsIndex | slice | Sequence[int] | Tensor | NDArray[Any]) -> EventBatch:
        if isinstance(samples, slice):
            chosen = range(*samples.indices(len(self)))
            if chosen.step == 1:
                return self._slice(chosen.start, max(chosen.start, chosen.stop))
            samples = chosen
        if isinstance(samples, Sequence) or (isinstance(samples, Tensor | np.ndarray) and samples.ndim > 0):
            return self._gathered(as_integers("samples", samples, self.device), self.shape[0])
        try:
            sample = operator.index(samples)
        except (TypeError, RuntimeError):
            got = type(samples).__name__
            raise TypeError(f"samples: expected an int, a slice, or a list or tensor of ints, got {got}") from None
        if not -len(self) <= sample < len(self):
            raise IndexError(f"samples: expected a value in [{-len(self)}, {len(self)}), got {sample}")
        sample %= len(self)
        return self._slice(sample, sample + 1)

    def _slice(self, start: int, stop: int) -> EventBatch:
        """The samples in [start, stop); indices, values and lengths are views of this batch's."""
        steps, _, inputs = self.shape
        offsets = self.offsets[start * steps : stop * steps + 1]
        events = slice(int(offsets[0]), int(offsets[-1]))
        values = None if self.values is None else self.values[events]
        lengths = None if self.lengths is None else self.lengths[start:stop]
        return self._trusted(
            offsets - events.start, self.indices[events], values, (steps, stop - start, inputs), lengths
        )

    def _gathered(self, samples: Tensor, steps: int | None) -> EventBatch:
        """The first steps (T if None) of the samples with the given numbers, in [-B, B), in that order."""
        batch = len(self)
        outside = first((samples < -batch) | (samples >= batch))
        if outside is not None:
            raise IndexError(f"samples: expected values in [{-batch}, {batch}), got {int(samples[outside])}")
        lengths = None if self.lengths is None else self.lengths[samples]
        return self._first_steps(torch.where(samples < 0, samples + batch, samples), steps, lengths)

    def _first_steps(self, samples: Tensor, steps: int | None, lengths: Tensor | None) -> EventBatch:
        """The first steps (T if None) of the samples with the given numbers, with these lengths."""
        own, _, inputs = self.shape
        rows = (samples * own)[:, None] + torch.arange(own, device=self.device)[:steps]
        learnt = self.values is not None and self.values.requires_grad  # the gradient of each slice is a whole tensor
        if self.num_events < 1024 * len(self) or learnt or self.device.type != "cpu" or not len(samples):
            return self._of_rows(rows, lengths)
        kept = rows.shape[1]
        first, last = self.offsets[samples * own], self.offsets[samples * own + kept]
        parts = [slice(*ends) for ends in zip(first.tolist(), last.tolist(), strict=True)]
        indices = torch.cat([self.indices[part] for part in parts])
        values = None if self.values is None else torch.cat([self.values[part] for part in parts])
        offsets = offsets_of((self.offsets[rows + 1] - self.offsets[rows]).flatten())
        return self._trusted(offsets, indices, values, (kept, len(samples), inputs), lengths)

    def _followed_by(self, batch: EventBatch) -> EventBatch:
        """Each sample of this batch, whose samples have all steps, followed by the same sample of another batch."""
        (before, samples, _), steps = self.shape, batch.shape[0]
        both = self.cat([self, batch], steps=max(before, steps))
        rows = both._rows()
        lengths = None if batch.lengths is None else batch.lengths + before
        return both._of_rows(torch.cat([rows[:samples, :before], rows[samples:, :steps]], 1), lengths)

    def _last(self, steps: int, lengths: Tensor | None) -> EventBatch:
        """The last steps of each sample, up to its length (B,), or to T; empty steps before its first."""
        own, batch, _ = self.shape
        ends = torch.full((batch,), own, device=self.device) if lengths is None else lengths
        step = ends[:, None] + torch.arange(-steps, 0, device=self.device)
        rows = torch.arange(batch, device=self.device)[:, None] * own + step.clamp(min=0)
        return self._of_rows(rows, None, step >= 0)

    def _rows(self) -> Tensor:
        """(B, T), the number of each row."""
        steps, batch, _ = self.shape
        return torch.arange(batch * steps, device=self.device).view(batch, steps)

    def _of_rows(self, rows: Tensor, lengths: Tensor | None, filled: Tensor | None = None) -> EventBatch:
        """A batch of rows of this one: ``rows`` (B, T) has their numbers; rows that are not ``filled`` are empty."""
        starts = self.offsets[rows].flatten()
        if filled is None:
            counts = self.offsets[rows + 1].flatten() - starts
        else:  # a batch without steps has no row 0
            ends = self.offsets[(rows + 1).clamp(max=len(self.offsets) - 1)]
            counts = (ends.flatten() - starts) * filled.flatten()
        offsets = offsets_of(counts)
        moved = (starts - offsets[:-1]).repeat_interleave(counts)
        chosen = torch.arange(int(offsets[-1]), device=self.device) + moved
        values = None if self.values is None else self.values[chosen]
        batch, steps = rows.shape
        return self._trusted(offsets, self.indices[chosen], values, (steps, batch, self.shape[2]), lengths)

    def _counts(self, steps: int) -> Tensor:
        """(B, steps), the number of events of each row, after extending each sample to ``steps`` >= T steps."""
        own, batch, _ = self.shape
        counts = self.offsets.diff().view(batch, own)
        return counts if own == steps else torch.nn.functional.pad(counts, (0, steps - own))

    def _values_or_ones(self, dtype: torch.dtype) -> Tensor:
        """The value of each event, 1 if the batch has no values."""
        return torch.ones(self.num_events, dtype=dtype, device=self.device) if self.values is None else self.values

    def _lengths_or(self, given: Tensor | Sequence[int] | None) -> Tensor | Sequence[int] | None:
        """The lengths that a call runs with: the batch's own, or those given beside a batch that has none."""
        if self.lengths is not None and given is not None:
            raise ValueError("lengths: expected None beside an EventBatch that has lengths, got lengths")
        return self.lengths if given is None else given

    def _lengths_or_steps(self) -> Tensor:
        """The length of each sample, T in a batch without lengths."""
        steps, batch, _ = self.shape
        return torch.full((batch,), steps, device=self.device) if self.lengths is None else self.lengths

    @property
    def num_events(self) -> int:
        """The number of events."""
        return self.indices.numel()

    @property
    def num_steps(self) -> int:
        """The sum of all samples' lengths; T for each sample of a batch without lengths."""
        return int(self._lengths_or_steps().sum())

    @property
    def density(self) -> float:
        """The number of events divided by T * B * K; 0 if that product is 0."""
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
        """Move the batch to a device; tensors that are already there are shared.

        With ``non_blocking`` and pinned memory the host does not wait for the copies.

        Raises:
            TypeError: ``device`` is not the name of a device.
            ValueError: the device is not available.

        Example:
            >>> import torch
            >>> from srcell import EventBatch
            >>> EventBatch.from_dense(torch.ones(1, 1, 1)).to("cpu").device
            device(type='cpu')

        """
        place = present_device(device)
        return self._map(lambda x: x.to(place, non_blocking=non_blocking))

    def pin_memory(self) -> EventBatch:
        """Copy the batch to page-locked memory, for faster copies to a GPU; DataLoader(pin_memory=True) calls it."""
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

    def _flatten(self) -> tuple[list[str], list[list[Any]]]:
        """The names of its tensors, and shape and names; lists, because JSON turns tuples into lists."""
        names = [name for name in TENSORS if getattr(self, name) is not None]
        return names, [list(self.shape), names]

    @classmethod
    def _unflatten(cls, tensors: Iterable[Any], context: list[list[Any]]) -> EventBatch:
        (steps, batch, inputs), names = context
        parts: dict[str, Any] = dict.fromkeys(TENSORS) | dict(zip(names, tensors, strict=True))
        return cls._trusted(shape=(steps, batch, inputs), **parts)


register_pytree(EventBatch, EventBatch._flatten, EventBatch._unflatten)
