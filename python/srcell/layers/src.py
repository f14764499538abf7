"""``SRC``, a stack of layers over a sequence, and ``SRCCell``, one step of a layer, both with linear synapses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence
from typing_extensions import Self, Unpack  # torch needs it too

from .._shared.arguments import as_float, check_bool, require_dense
from .._shared.state import AnyState, state_type
from ..events import EventBatch
from ..functional.layer import State, check_state
from ..functional.synapse import currents_of, directly, linear
from ..ops._direct import ONE_STEP, STACKED
from ..ops._layer import LayerArguments
from ..ops._table import shape_error
from .base import Neurons
from .constants import check_size
from .description import changed
from .options import RecurrentOptions, split_recurrent, spread, spread_frequencies, takes_options
from .recorded import Call

MOST_MEMORY = 2.0**53  # steps: with a longer time constant, alpha would round to 1 in float64


class _Linear(Neurons):
    """What SRC and SRCCell share: a linear synapse before the neurons."""

    def __init__(
        self, input_size: int, hidden_size: int, suffixes: Sequence[str], /, **options: Unpack[RecurrentOptions]
    ) -> None:
        check_size("input_size", input_size, 0)
        check_size("hidden_size", hidden_size, 0)
        inputs = [input_size, *[hidden_size] * (len(suffixes) - 1)]
        shapes: dict[str, tuple[int, ...]] = {s: (hidden_size, k) for s, k in zip(suffixes, inputs, strict=True)}
        recurrent, others = split_recurrent(options)
        super().__init__(hidden_size, shapes, recurrent, **others)
        self.input_size, self.hidden_size = input_size, hidden_size

    def _run(
        self,
        suffix: str,
        input: Tensor | EventBatch,
        state: State | None,
        lengths: Tensor | Sequence[int] | None,
        input_grad_at_events: bool = False,
        *,
        given: tuple[Tensor, LayerArguments] | None = None,
    ) -> tuple[Tensor, AnyState]:
        """Run a layer; ``given`` are its weight and its record if C++ has refused to run it directly."""
        weight, layer = given or self._record(suffix, input, state, lengths)
        if given is not None:
            layer = LayerArguments(*layer[:2], state, *layer[3:])  # type: ignore[arg-type]
        made = None
        if given is None and not torch.compiler.is_compiling():
            made = directly(input, weight, layer, input_grad_at_events=input_grad_at_events)
        outputs = made or linear(input, weight, layer, input_grad_at_events=input_grad_at_events)
        if self.recorder is not None:
            held = None if lengths is None else torch.as_tensor(lengths)
            currents = partial(currents_of, input, weight, held)
            states = partial(self._states, suffix, currents, state, held)
            self.recorder(suffix, Call(outputs[0].detach(), states, input))
        return outputs

    def extra_repr(self) -> str:
        """The sizes, and the options that differ from the defaults."""
        return ", ".join(filter(None, [f"{self.input_size}, {self.hidden_size}", super().extra_repr()]))


class SRC(_Linear):
    r"""A stack of Spiking Recurrent Cell layers, used like torch.nn.RNN.

    Its defaults are for events and images; for sequences of real numbers, in the place of an ``nn.GRU``, use
    ``SRC.for_sequences``. It is trained with backpropagation through time; ``surrogate`` and ``full_gradient`` choose
    the gradient. Its repr builds it again, but for device and dtype, and unless a tensor has more than eight values, a
    number is infinite, or the layers of a stack loaded different values.

    Args:
        input_size: K, inputs of the first layer.
        hidden_size: N, neurons of every layer.
        alpha: share of the integrator that stays in a step, in [0, 1]. Like every parameter of the cell, a float, or a
            tensor (N,) of one value per neuron, which is copied; also :func:`srcell.spread`.
        omega: angular frequency in radians per step, in [-pi, pi], as for :func:`srcell.functional.src`; also
            :func:`srcell.spread_frequencies`. Unless it is the constant 0, the neurons resonate with inputs of their
            frequency, and states are :class:`~srcell.ResonantState`.
        recurrent: whether each layer has recurrent weights, through which every neuron receives at step t the spikes of
            step t-1 of all neurons of its layer.

    As in torch:
        num_layers: number of layers; each gets the spikes of the one below.
        batch_first: dense inputs, and their outputs, are (B, T, \*) instead of (T, B, \*); states and EventBatches are
            not affected.
        dropout: probability of dropping a spike between layers in training, in [0, 1].
        device: of the parameters.
        dtype: of the parameters.

    The cell:
        rho, r, rs, zs_hyp, zs_dep: as for :func:`srcell.functional.src`; zs_hyp may be a :func:`srcell.spread` too.
        learnable: names of the parameters to learn: cell parameters, of which zs_hyp and zs_dep need
            ``full_gradient=True``, and ``"delay_hh"``. Every call clamps them to their domains: alpha, zs_hyp and
            zs_dep to [0, 1], rho to >= 1e-3, omega to [-pi, pi], delay_hh to [0, max_delay].
            Outside its domain a parameter gets no gradient that would move it further out. Spikes are even in omega,
            so an omega of 0 has no gradient: learning from 0 alone is refused.
        learn_bias: whether the excitability is learnt; otherwise it stays at ``bias_init``.
        bias_init: the initial bias.
        bias_max: upper bound of a learnt bias. In every call, and in exported files, a larger bias acts as this bound,
            and it gets no gradient that would raise it further. ``math.inf`` is no bound.
        initial_state: ``"zeros"``, or ``"rest"``, the silent fixed point.
        learn_initial_state: learn the initial state, starting from ``initial_state``; needs ``full_gradient=True`` or
            ``recurrent=True``, with which only h has a gradient in the default mode. The q of resonant neurons starts
            at 0.
        input_gain: multiply the initial weights of the first layer by this factor, above 0 and at most a hundredth of
            the largest number of their dtype, and by ``sqrt((1 - alpha^2) / (1 - 0.9^2))``, which is 1 for the default
            alpha: under noise the integrators of slow and fast neurons are then equally large. None: neither.

    Recurrent weights:
        recurrent_surrogate: surrogate gradient of these spikes: ``"relu"``, or ``"straight_through"``, with which
            gradients grow from step to step.
        autapses: whether a neuron receives its own spikes; otherwise the diagonal of the recurrent weights is 0 and
            gets no gradient, and loading another diagonal raises.
        delay_hh: delays of the spikes through the recurrent weights, in steps beside the one that they take anyway: a
            float, or a tensor (N,) of one delay per neuron, which is copied. A spike costs the same whatever its delay.
            With delays the states are :class:`~srcell.DelayedState` or :class:`~srcell.DelayedResonantState`.
        max_delay: the largest delay, an int in [0, 65535]; the ceiling of the largest fixed delay if absent. Learnt
            delays need it.
        delay_width: half-width of the interpolation of ``delay_hh`` in steps, as in :func:`srcell.delay`. The
            attribute may be set between epochs: delays learn faster from a wide interpolation, and end with a width of
            1. It is not in the state_dict.

    The gradient:
        surrogate: ``"straight_through"``, with which gradients pass straight through the output, or ``"relu"``, its
            derivative.
        full_gradient: whether gradients also flow through h[t-1] and hs[t-1]. By default they flow through time only
            along the integrator, which is cheaper and trains more robustly; ``surrogate="relu"`` with
            ``full_gradient=True`` gives the exact gradient.

    Attributes:
        weight_ih_l{k}: (N, K) for the first layer, (N, N) for later ones.
        weight_hh_l{k}: (N, N), with ``recurrent``: [n, m] is the weight from neuron m to neuron n.
        bias_l{k}: (N,).
        alpha_l{k}: and so on, for learnable parameters and those given as tensors.
        delay_hh_l{k}: () or (N,), with ``delay_hh``.

    All other constants (cell parameters given as floats, a fixed bias, the kind of initial state, a ``bias_max`` other
    than -4) are in the state_dict as one tensor, ``_extra_state``. A layer that loads different constants takes them
    over, with a warning.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a wrong size or value, an unknown name, a learnable parameter that has no gradient in this mode, or
            an omega of 0 to learn.

    Example:
        >>> import torch, srcell
        >>> layer = srcell.SRC(784, 100)
        >>> spikes, state = layer(torch.rand(50, 8, 784).lt(0.03).float())
        >>> spikes.shape, state.h.shape
        (torch.Size([50, 8, 100]), torch.Size([1, 8, 100]))

    """

    @takes_options(RecurrentOptions)
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        **options: Unpack[RecurrentOptions],
    ) -> None:
        check_size("num_layers", num_layers, 1)
        check_bool("batch_first", batch_first)
        dropout = as_float("dropout", dropout)
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout: expected a probability in [0, 1], got {dropout}")
        super().__init__(input_size, hidden_size, [f"_l{k}" for k in range(num_layers)], **options)
        self.num_layers, self.batch_first, self.dropout = int(num_layers), batch_first, dropout

    @classmethod
    def for_sequences(
        cls,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        memory: float = 100.0,
        input_gain: float = 1.0,
        **options: Any,
    ) -> Self:
        """A layer with the options that sequences need, where those of ``SRC`` are for images and hold for one spike.

        It has recurrent weights, time constants from 2 to ``memory`` steps, frequencies with periods from about 6 to
        3 ``memory`` steps, and starts at rest. Under noise the integrators of slow and fast neurons are equally large
        (``input_gain``). The drive has a wide bound (``rho=10``), which sums over many steps do not saturate; the
        negative feedback is weaker (``rs=-4``) and ends sooner (``zs_hyp=0.2``), so that spikes grow with the drive and
        follow each other closely. A drive that stays above ``-(r + rs + bias)``, 8 at the start, keeps a neuron active.
        docs/howto/sequences.md shows the effect on five tasks, with one layer.

        Args:
            input_size: inputs, K.
            hidden_size: neurons per layer, N.
            num_layers: number of layers.
            memory: the longest time constant in steps, in [2, 2^53]. About the number of steps over which an input
                matters; a few times less than the length of a long sequence is enough.
            input_gain: as in ``SRC``. 1 suits real numbers; inputs of zeros and ones may be learnt more reliably with
                2, as binary adding is.
            **options: those of ``SRC``, which replace the ones above: ``recurrent``, ``alpha``, ``rho``, ``rs``,
                ``zs_hyp``, ``omega``, ``initial_state`` and any other.

        Raises:
            TypeError, ValueError: as ``SRC`` does; ``memory`` is not a number, or outside its range.

        Example:
            >>> import srcell
            >>> layer = srcell.SRC.for_sequences(12, 64, learnable=["omega"])
            >>> layer.recurrent, layer.alpha_l0[[0, -1]]
            (True, tensor([0.5000, 0.9900]))

        """
        memory = as_float("memory", memory)
        if not 2 <= memory <= MOST_MEMORY:
            raise ValueError(f"memory: expected a number of steps in [2, 2^53], got {memory}")
        found: dict[str, Any] = {
            "recurrent": True,
            "alpha": spread(0.5, 1 - 1 / memory),
            "rho": 10.0,
            "rs": -4.0,
            "zs_hyp": 0.2,
            "omega": spread_frequencies(2 / memory, 1.0),
            "initial_state": "rest",
            "input_gain": input_gain,
        }
        return cls(input_size, hidden_size, num_layers, **(found | options))

    def forward(
        self,
        input: Tensor | EventBatch,
        state: State | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        input_grad_at_events: bool = False,
    ) -> tuple[Tensor, AnyState]:
        """Run the layers over a sequence.

        Args:
            input: (T, B, K), (B, T, K) if ``batch_first``, or an EventBatch; or (T, K), one sample, whose outputs and
                states lack B. Bools and integers count as numbers of spikes.
            state: three tensors (num_layers, B, N), or four if the neurons resonate, and with ``delay_hh`` the past,
                (num_layers, B, max_delay + delay_width, N), or none for zeros; the initial state if absent.
            lengths: (B,) integers in [0, T]; must be absent for an EventBatch that has its own, and for one sample.
            input_grad_at_events: whether to leave the gradient of a dense input unspecified where the input is 0, which
                saves work. This is right if the input is the output of a layer with the relu surrogate, whose
                derivative is 0 there. The later layers of this stack always do it if ``surrogate="relu"``.

        Returns:
            The spikes of the last layer, (T, B, N) or (B, T, N), and the state of all layers after each sample's last
            step, with tensors as those of ``state``.

        """
        back, given = False, None
        if isinstance(input, EventBatch):
            lengths = input._lengths_or(lengths)
        elif not isinstance(input, Tensor) or input.dim() != 3:
            return self._forward_other(input, state, lengths, input_grad_at_events)
        elif self.batch_first:
            require_dense("input", input)
            if input.shape[2] != self.input_size:
                raise shape_error("input", f"(B, T, {self.input_size})", input.shape)
            back, input = True, input.transpose(0, 1)
        # One call of C++ where nothing needs converting or checking; otherwise the general path, which raises errors.
        if self.num_layers == 1 and self.recorder is None and not torch.compiler.is_compiling():
            suffix = self._suffixes[0]
            given = weight, layer = self._record(suffix, input, state, lengths, stacked=True)
            made = directly(input, weight, layer, "auto", STACKED, input_grad_at_events=input_grad_at_events)
            if made:
                return (made[0].transpose(0, 1), made[1]) if back else made
            state = layer.state
        if isinstance(input, Tensor):
            require_dense("input", input)
        per_layer = self._split_state(state)
        ended: list[AnyState] = []
        x: Tensor | EventBatch = input
        for k, suffix in enumerate(self._suffixes):
            spikes, after = self._run(suffix, x, per_layer[k], lengths, input_grad_at_events, given=given)
            ended.append(after)
            # The relu surrogate is 0 where a neuron is silent: the gradient there is not used.
            input_grad_at_events = self.surrogate == "relu"
            x = F.dropout(spikes, self.dropout, self.training) if k + 1 < self.num_layers else spikes
        output = spikes.transpose(0, 1) if back else spikes
        stacked = (each[0][None] if len(each) == 1 else torch.stack(each) for each in zip(*ended, strict=True))
        return output, state_type(self.resonates, self.delayed)(*stacked)

    def _forward_other(
        self, input: Any, state: State | None, lengths: Any, input_grad_at_events: bool
    ) -> tuple[Tensor, AnyState]:
        """``forward`` for one sample (T, K); raises for anything that is no input."""
        if not isinstance(input, Tensor) or input.dim() != 2:
            shape = "(B, T, K)" if self.batch_first else "(T, B, K)"
            got = f"{tuple(input.shape)}" if isinstance(input, Tensor) else type(input).__name__
            if isinstance(input, PackedSequence):
                got += ": pass the padded tensor, and lengths"
            raise ValueError(f"input: expected an EventBatch or a tensor {shape} or (T, K), got {got}")
        require_dense("input", input)
        if lengths is not None:
            raise ValueError("lengths: expected None beside an input (T, K), got lengths")
        batch_dim = 0 if self.batch_first else 1
        batched = None
        if state is not None:
            batched = state_of_batch(state, self.resonates, self._past_steps, self.num_layers, self.hidden_size)
        spikes, after = self.forward(input.unsqueeze(batch_dim), batched, input_grad_at_events=input_grad_at_events)
        return spikes.squeeze(batch_dim), type(after)(*[x.squeeze(1) for x in after])

    def _split_state(self, state: State | None) -> list[State | None]:
        if state is None:
            return [None] * self.num_layers
        given = check_state(state, self.resonates, self._past_steps)
        for name, x in given.items():
            require_dense(f"state.{name}", x)
            of_past = (self._past_steps,) if name == "past" else ()
            if x.dim() != 3 + len(of_past) or x.shape[0] != self.num_layers:
                expected = ", ".join(map(str, (self.num_layers, "B", *of_past, self.hidden_size)))
                raise shape_error(f"state.{name}", f"({expected})", x.shape)
        return [tuple(x[k] for x in given.values()) for k in range(self.num_layers)]

    def extra_repr(self) -> str:
        """The sizes, and the options that differ from the defaults."""
        own = changed(self, {"num_layers": 1, "batch_first": False, "dropout": 0.0})
        return ", ".join([super().extra_repr(), *own])


class SRCCell(_Linear):
    """One step of a layer of Spiking Recurrent Cells, used like torch.nn.RNNCell.

    Args:
        input_size: inputs, K.
        hidden_size: neurons, N.
        recurrent: as in :class:`SRC`.
        recurrent_surrogate: as in :class:`SRC`.
        autapses: as in :class:`SRC`.
        delay_hh: as in :class:`SRC`. Each step copies the past, B (max_delay + delay_width) N numbers, so long delays
            cost less in one call of :class:`SRC` over many steps.
        max_delay: as in :class:`SRC`.
        delay_width: as in :class:`SRC`.
        **options: the other options of :class:`SRC`, without those of a stack; with ``full_gradient`` gradients flow
            through h and hs from step to step.

    Attributes:
        weight_ih: (N, K).
        weight_hh: (N, N), with ``recurrent``.
        delay_hh: () or (N,), with ``delay_hh``.
        bias_ih: (N,).

    Example:
        >>> import torch, srcell
        >>> cell, state = srcell.SRCCell(5, 3), None
        >>> for x in torch.rand(10, 2, 5):
        ...     spikes, state = cell(x, state)
        >>> spikes.shape, state.h.shape
        (torch.Size([2, 3]), torch.Size([2, 3]))

    """

    _WEIGHT_NAME, _BIAS_NAME = "weight_ih", "bias_ih"

    @takes_options(RecurrentOptions)
    def __init__(self, input_size: int, hidden_size: int, **options: Unpack[RecurrentOptions]) -> None:
        super().__init__(input_size, hidden_size, [""], **options)

    def forward(self, input: Tensor, state: State | None = None) -> tuple[Tensor, AnyState]:
        """Advance by one step.

        Args:
            input: (B, K), or (K,), one sample, whose outputs and states lack B. Bools and integers count as numbers of
                spikes.
            state: three tensors (B, N), or four if the neurons resonate, and with ``delay_hh`` the past,
                (B, max_delay + delay_width, N), or none for zeros; the initial state if absent.

        Returns:
            The spikes, (B, N), and the state after the step, with tensors as those of ``state``.

        """
        given = None
        plain = isinstance(input, Tensor) and input.dim() == 2 and self.recorder is None
        if plain and not torch.compiler.is_compiling():
            given = weight, layer = self._record("", input, state, None, 0)
            made = directly(input, weight, layer, "auto", ONE_STEP)
            if made:
                return made
            state = layer.state
        if not isinstance(input, Tensor) or input.dim() not in (1, 2):
            got = tuple(input.shape) if isinstance(input, Tensor) else type(input).__name__
            raise ValueError(f"input: expected a tensor (B, {self.input_size}) or ({self.input_size},), got {got}")
        if input.layout != torch.strided or input.is_nested:
            require_dense("input", input)
        if input.dim() == 1:
            if state is not None:
                state = state_of_batch(state, self.resonates, self._past_steps, self.hidden_size)
            spikes, after = self.forward(input[None], state)
            return spikes[0], type(after)(*[x[0] for x in after])
        spikes, after = self._run("", input.unsqueeze(0), state, None, given=given)
        return spikes.squeeze(0), after


def state_of_batch(state: State, resonant: bool, past_steps: int, *shape: int) -> tuple[Tensor, ...]:
    """Turn one sample's state of that shape, (N,) or (layers, N), into the state of a batch of one."""
    given = check_state(state, resonant, past_steps)
    for name, x in given.items():
        expected = (*shape[:-1], past_steps, shape[-1]) if name == "past" else shape
        if tuple(x.shape) != expected:
            got = tuple(x.shape)
            raise ValueError(f"state.{name}: expected shape {expected}, as the input has no batch, got {got}")
    return tuple(x.unsqueeze(len(shape) - 1) for x in given.values())
