"""Break the code one line at a time and see whether a test fails.

    python tools/mutants.py [--every-change] [--every-isa] [WORD ...]

Each mutant is one change in csrc/ or python/srcell/ that changes what the code does. For each, the script makes the
change, builds, runs the tests listed for the file, cheapest first, until one fails, and restores the file. If no test
fails, the mutant has survived and a test is missing. With words as arguments, only mutants with one of them in file or
description are run. With --every-change, only the tests that `make test` runs count. Of the kernels, the scalar ones
alone are compiled; with --every-isa also those of AVX2: some mutants show only where both are compared.

Run it by hand; it is not part of CI. It needs the extra `dev` and the package installed as editable. On one core a
mutant of csrc/ takes one or two minutes, those of python/ take half an hour together; before them, the tests run once
without a mutant. It writes to build/mutants and, while it runs, to python/srcell. It builds with -O1, which compiles
faster; the bits do not depend on that.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pybind11

from srcell import _core

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "mutants"
INSTALLED = Path(_core.__file__)  # each mutant's module takes its place
TIMEOUT = 600  # seconds; a mutant may loop for ever

# "==", a file and its tests: names of ctest, x.py for tests/test_x.py, and `ptx`, which is `tools/check.sh cuda`. Then,
# for each mutant, what it breaks and, indented, the old text => the new text. In the old text a space matches any white
# space.
TABLE = """
== cell-inl.h: core cell_facts.py src.py gradients.py linear.py bits.py resonance.py
hs follows h[t], not h[t-1]
    state.hs - state.h, state.h); state.h = tanh(u); => state.hs - tanh(u), tanh(u)); state.h = tanh(u);
the bound of the flush
    splat<V>(0x1p-100) => splat<V>(0x1p-120)
float64 is flushed as well
    if constexpr (sizeof(scalar_of<V>) == sizeof(double)) return x; =>
the integrator is not flushed
    flush_tiny(fma(cell.alpha, state.i, current)) => fma(cell.alpha, state.i, current)
the adjoint of the integrator is not flushed
    flush_tiny(fma(u, fma(negate(drive), drive, one), carry.i)) => fma(u, fma(negate(drive), drive, one), carry.i)
a spike of NaN is 0
    select(less_equal(h, splat<V>(0)), splat<V>(0), h) => select(less_equal(splat<V>(0), h), h, splat<V>(0))
swapped gates
    fma(along_gate, one - gate, sum[kZsHyp]) => fma(along_gate, gate, sum[kZsHyp])
resonant neurons turn the other way
    fma(negate(cell.turn), state.q, current) => fma(cell.turn, state.q, current)
q is not flushed
    flush_tiny(fma(cell.turn, state.i, cell.alpha * state.q)) => fma(cell.turn, state.i, cell.alpha * state.q)
the gradient of q turns the other way
    fma(cell.alpha, carry.q, negate(cell.turn * i)) => fma(cell.alpha, carry.q, cell.turn * i)
the gradient of alpha lacks q
    sum[kAlpha] = fma(arrived.q, before.q, sum[kAlpha]); =>
== vmath-inl.h: core vmath.py bits.py
float32 tanh never reaches 1
    tanh_saturates = 9.5f => tanh_saturates = 8.0f
the sign of the low part of ln(2) in float64
    = 0x1.abc9e3b39803fp-56 => = -0x1.abc9e3b39803fp-56
the tail of sine's argument is lost
    + fma(r * z, polynomial(of_sine, z), tail * rest) => + (r * z) * polynomial(of_sine, z)
one more rounding in tanh
    e_plus_two = fma(scale, reduced.expm1, scale + one) => e_plus_two = e + splat<V>(2)
== common-inl.h: core events device gradients.py resonance.py
the adjoint goes without q
    return parameters || (full_gradient => return (parameters && state != kQ) || (full_gradient
a length is not clamped
    clamp_to(read_once(shape.lengths + sample), 0, shape.steps);
    => clamp_to(read_once(shape.lengths + sample), 0, INT64_MAX);
== params.h: integer integer.py
one weight too many is summed in 16 bits
    INT16_MAX / largest; => INT16_MAX / largest + 1;
== cpu/scan-inl.h: core device gradients.py src.py bits.py arguments.py
lengths are ignored
    steps_of(shape, run)} => shape.steps}
a segment ends a step too early
    end = begin, begin -= kSegment) { => begin -= kSegment, end = begin + kSegment - 1) {
== cpu/lateral-inl.h: lateral lateral.py bits.py
spikes of the initial state are not received
    append_active<V>(m.states[k].of[kH], tile, m.active); =>
spikes of lanes past the last neuron are received
    ~silent & (~uint64_t{0} >> (64 - lanes)) => ~silent
recurrent weights transposed
    to.weight[n * neurons + m] => to.weight[m * neurons + n]
the initial spikes get no gradient
    load<R>(carry.of[kH] + at) + load<R>(m.through + tile.first + at) => load<R>(carry.of[kH] + at)
the surrogates of the recurrent path swapped
    if (p.lateral.relu) { => if (!p.lateral.relu) {
== cpu/events-inl.h: events device linear.py bits.py arguments.py
an index one past the last input is accepted
    static_cast<int64_t>(largest) < events.inputs => static_cast<int64_t>(largest) <= events.inputs
a last offset below the number of events is accepted
    ends = sample + 1 < shape.batch => ends = sample + 1 <= shape.batch
the last event of some steps is not gathered
    return input_or_first(indices + n, inputs); }, values, events.size());
    => return input_or_first(indices + n, inputs); }, values, events.size() - (events.begin % 7 == 6));
gradients of values one step past the length are not zero
    t < length ? dot => t <= length ? dot
the lanes of a dot product are added in another tree
    for (int64_t half = width / 2; half; half /= 2) for (int64_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
    => for (int64_t j = 1; j < width; ++j) lanes[0] += lanes[j];
the trace past the length is not zeroed
    if (save) zero_row<V>(p.trace + trace_at(p.shape, sample, tile, t), tile.count); =>
== cpu/tile-inl.h: core events device gradients.py linear.py bits.py resonance.py
the partial sums of alpha and omega are not turned back
    if (p.turn && (p.grad_parameters[kAlpha] || p.grad_parameters[kOmega])) unturn_gradients(p); =>
the first plane of the first checkpoint past the length is not zeroed
    row = rows * segments(tile.steps, steps) => row = rows * segments(tile.steps, steps) + 1
a tile over several samples reads one neuron past the last
    n + 1 == neurons ? 0 => n == neurons ? 0
with relu a gradient passes at h = 0
    select(less_equal(h, => select(less(h,
the sums of one parameter of the layer are added in another tree
    sum_rows(sums, batch, neurons, neurons); if (!stride) sum_rows(sums, neurons, 1, 1);
    => if (stride) sum_rows(sums, batch, neurons, neurons); else sum_rows(sums, batch * neurons, 1, 1);
== cpu/dense-inl.h: events events.py linear.py
the upper half of each word of a mask
    nonzero |= bits << j; => nonzero |= bits << (j & 31);
the last thread alone decides whether all events are 1
    if (!ones) job.ones = false; => job.ones = ones;
== cpu/product-inl.h: events linear.py bits.py
the product is not fused
    sum[r][c] = fma(gradient, weight[c], sum[r][c]); => sum[r][c] = gradient * weight[c] + sum[r][c];
== cpu/count-inl.h: readout.py
a spike right after NaN is no crossing
    !(before[k] > threshold) => (before[k] <= threshold)
== integer-inl.h: integer integer.py
the drive is that of i >= 0
    state.i > zero => state.i >= zero
the gate changes one above its threshold
    h < neuron.gate_threshold ? neuron.zs_hyp.part => h <= neuron.gate_threshold ? neuron.zs_hyp.part
hs follows h[t], not h[t-1]
    h + integer_scaled(hs - h, z) => state.h + integer_scaled(hs - state.h, z)
a factor above a half wraps around
    whole = over > 32767; => whole = over > 65535;
a spike is above the threshold
    h >= neuron.spike_threshold => h > neuron.spike_threshold
== integer_surrogate-inl.h: integer integer.py
i has no range
    tanh(i / surrogate.range) => tanh(i)
== cpu/integer-inl.h: integer integer.py
sums beyond 16 bits wrap around
    return static_cast<int16_t>(raised > INT16_MAX ? INT16_MAX : raised); => return static_cast<int16_t>(raised);
the second part of a current is ignored
    if (parts) unbounded => if (parts && count < 0) unbounded
clamps are counted in 16 bits
    if (t % kCountedSteps == kCountedSteps - 1) => if (t < 0)
rows packed by event are read by index
    synapse.by_event() ? nullptr : synapse.events.indices => synapse.events.indices
slopes past the length are not zeroed
    if (save) zero_row<F32>(p.slopes + t * plane + where.offset, count); =>
gradients past the length are not zeroed
    if (p.grad_current) zero_row<F32>(p.grad_current + t * plane + tile.offset, tile.count); => {}
the gradient does not leak
    splat<R>(p.alpha) * made => made
the gradient runs on from sample to sample
    std::memset(carry, 0, sizeof carry); => if (sample == first) std::memset(carry, 0, sizeof carry);
== cpu/vec_short-inl.h: integer integer.py
sums of the scalar table saturate at the wrong end
    x < Shorts{} ? least : most => x < Shorts{} ? most : least
a product's low bits
    >> 16, Shorts) => >> 15, Shorts)
== cpu/encode_kernels-inl.h: encode device encoders.py
a constant of Philox
    splat_word(0xCD9E8D57) => splat_word(0xCD9E8D53)
thresholds are rounded down
    __builtin_ceil( => __builtin_floor(
latencies are counted without the prefix
    ++ends[p.prefix + fires_at[j]]; => ++ends[fires_at[j]];
latencies half-way are rounded away from zero
    __builtin_nearbyint( => __builtin_round(
a pixel that fired, kept or not, drops the spike after it
    if (p.thinned) fired[step] &= ~before; before = fired[step];
    => const uint32_t drawn = fired[step]; if (p.thinned) fired[step] &= ~before; before = drawn;
thinning begins anew every eight steps
    before = t ? sample.fired[(t - 1) * sample.groups + group] : 0; => before = 0;
== cpu/event_rows.cpp: threads events.py
an index one past the last input is no fault
    signs |= value | (static_cast<Bits>(last) - value); => signs |= value | (static_cast<Bits>(last) + 1 - value);
the remainder of a division into parts is not checked
    event_part = ceil_div(p.events, pass.pieces) => event_part = p.events / pass.pieces
== params.h: cell_facts.py src.py modules.py file_format.py runtime.py resonance.py
another default
    {"alpha", 0.9, => {"alpha", 0.95,
a rho may be learnt that is larger than it says
    true, 1e-3, kUnbounded => true, 1e-2, kUnbounded
a zs_hyp above 1 is learnt
    {"zs_hyp", 0.9, -kUnbounded, kUnbounded, nullptr, false, 0, 1,
    => {"zs_hyp", 0.9, -kUnbounded, kUnbounded, nullptr, false, 0, 2,
an omega of float32's pi is refused
    {"omega", 0, -kFloatPi, kFloatPi, => {"omega", 0, -kPi, kPi,
zs_dep always has a gradient
    {"zs_dep", 0, -kUnbounded, kUnbounded, nullptr, false, 0, 1, true
    => {"zs_dep", 0, -kUnbounded, kUnbounded, nullptr, false, 0, 1, false
files of the first version may resonate
    -kPi, kPi, false, 2} => -kPi, kPi, false, 1}
== cpu/camera-inl.h: camera.py
thresholds of falls are those of rises
    deviate(words[1] & 0xFFFF, words[2] & 0xFFFF, words[3] & 0xFFFF)
    => deviate(words[1] >> 16, words[2] >> 16, words[3] >> 16)
part of a threshold is a whole one
    return select(less(exact, nearest), nearest - splat<Brightness>(1), nearest); => return nearest;
what a change leaves over is forgotten
    level + (rises * rise - falls * fall) => select(less(splat<Brightness>(0), rises + falls), seen, level)
the refractory time ends a step too early
    t + 1 + p.refractory => t + p.refractory
noise falls twice on the same place
    words + n % 2 * 2 => words
noise makes no falls
    static_cast<uint64_t>(2 * p.height * p.width) => static_cast<uint64_t>(p.height * p.width)
the first step sees no movement
    look(static_cast<double>(t + 1)) => look(static_cast<double>(t))
pictures smaller by an odd number of pixels are in another place
    x >= 0 ? x / 2 : -((1 - x) / 2) => x / 2
the places of both axes are the same
    pictures.place * drawn(2) => pictures.place * drawn(1)
== runtime/camera.cpp: camera.py
the view reaches no further than its movement
    + 3 * settings.place) => )
a movement may stand still in time
    point[0] > point[-3] => point[0] >= point[-3]
== cpu/learn-inl.h: learner learner.py
Adam adds epsilon before it corrects the variance
    square_root(variance) * splat<V>(p.inverse_root) + splat<V>(p.epsilon)
    => (square_root(variance) + splat<V>(p.epsilon)) * splat<V>(p.inverse_root)
the gradient that Adam squares is not clipped
    splat<V>(p.take_variance) * gradient * gradient;
    => splat<V>(p.take_variance) * load_lanes<V>(p.gradient + k, lanes) * load_lanes<V>(p.gradient + k, lanes);
the last squares are not summed
    for (int64_t j = 0; k < count; ++k, ++j) sums[j] += static_cast<double>(x[k]) * static_cast<double>(x[k]); =>
the loss is exact to float32 alone
    near + (sum * exponential(-near) - 1) + => near +
== runtime/learner.cpp: learner learner.py adapt.py free_threading.py
no bias at its bound can fall
    > part.bound[n] && gradient < 0 => > part.bound[n]
a diagonal of 0 is learnt
    gradient_.data()[part.lateral + n * (layer.neurons + 1)] = 0; => {}
only the last neuron's own weight counts
    part.autapses |= own != 0; => part.autapses = own != 0;
small gradients are enlarged
    clip > 0 && norm > clip => clip > 0
a restored learner has forgotten its means' steps
    mean_power_ = mark.counts[1], variance_power_ => variance_power_
an altered count of steps is restored
    add_to_hash(sum, mark.counts, sizeof mark.counts); =>
the loss of values is not the mean over outputs
    targets.labels ? answers : answers * classes => answers
the answer of a shorter sample is at the last step
    u == length - 1 ? back => u == steps - 1 ? back
targets past a length are checked
    targets.every_step && input.lengths && t >= => targets.every_step && input.lengths && t < 0 && t >=
a second thread may learn too
    learner.busy_.exchange(true) => false
other classes keep the old names
    file.texts.erase("classes"); =>
a loss that is no number is learnt
    if (!std::isfinite(loss)) => if (false)
== runtime/learning_rule.cpp: learner learner.py
digits behind the point count as those before it
    exponent -= behind_point; => exponent -= 0;
the exponent's sign is ignored
    exponent += down ? -power : power; => exponent += power;
== runtime/tensor_file.cpp: runtime runtime.py file_format.py learner.py
the second tensor of a name is left out
    size - kLengthBytes - length)).second) => size - kLengthBytes - length)).second && false)
tensors may have gaps between them
    if (begin != end) throw => if (begin < end) throw
bytes after the last tensor are accepted
    if (end != data + size) throw => if (end > data + size) throw
offsets of another size are accepted
    || range[1] - range[0] != tensor.count * itemsize) => )
a header may be longer
    if (length > kMaxHeader) => if (length > 2 * kMaxHeader)
surrogate pairs lose their upper part
    0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00)) => 0x10000 + (low - 0xDC00)
numbers may overflow
    if (++digits > 18) => if (++digits > 40)
a written control character is itself
    if (static_cast<unsigned char>(c) < 0x20) made += => if (static_cast<unsigned char>(c) < 0x10) made +=
== domains.h: src.py runtime.py integer.py
a rho without a finite reciprocal is accepted
    && std::isfinite(1 / value) =>
a constant one above the largest is accepted
    values[k] > constant.most => values[k] > constant.most + 1
== cpu/listed_events.h: linear.py linear_gradients.py src.py
an input whose values are not all 1 is taken as spikes
    if (!ones.value_or(true)) values_ => if (false) values_
== bindings/arguments.h: src.py bits.py linear.py events.py arguments.py
only the first value of a parameter per neuron is checked
    n < (stride ? shape.neurons : 1) => n < 1
negative lengths are accepted
    shape.lengths[b] < 0 || =>
kernels run without PlainArithmetic
    PlainArithmetic plain_; =>
== bindings/events.cpp: events.py
float32 is read as float64 and the other way round
    is_double ? nullptr : pointer<const float>(rows.values), is_double ? pointer<const double>(rows.values) : nullptr
    => is_double ? pointer<const float>(rows.values) : nullptr, is_double ? nullptr : pointer<const double>(rows.values)
== bindings/tensors.cpp: private_names.py calls.py gradients.py modes.py arguments.py dlpack.py integer.py operators.py
modes see no operator
    has_unusual_keys() || =>
profilers see no operator
    || call(of.is_profiled).ptr() == Py_True =>
tensors on several devices are read as if they were on one
    if (device_ && !(*device_ == found.device)) return false; =>
negated views are read as they are
    call_method(object, torch().is_neg).ptr() == Py_True => false
gradients count where torch records none
    with_gradients_(is_plain_ && gradients_enabled()) => with_gradients_(is_plain_)
negative strides go to torch
    fits = span >= 0 && (last += span) < INT64_MAX; => fits = (last += span) < INT64_MAX;
the product of the sizes overflows
    if (size && elements > INT64_MAX / 8 / size) throw => if (elements < 0) throw
large arrays of small numbers have some too many
    if (bytes < 4) tensor = => if (bytes < 1) tensor =
== bindings/calls.cpp: calls.py linear.py modules.py
a mode does not see a direct call
    (is_watched() || autocasts()) => autocasts()
autocast does not see a direct call
    (is_watched() || autocasts()) => is_watched()
the gradients of a direct call cannot be differentiated again
    (is_watched() || gradients_enabled()) => is_watched()
a past that needs a gradient gets that of another state
    k < states ? k : Py_ssize_t(kPast) => k
== bindings/acting.h: acting.py modules.py
a value below its domain is not clamped
    x < low ? low : x > high ? high : x => x > high ? high : x
gradients pass outwards
    if (above || below) => if (above)
autapses act
    made[n * (neurons + 1)] = 0; => (void)made;
neighbours with other gains start alike
    b != biases.back() || gain != gains.back() => b != biases.back()
== bindings/layer.cpp: calls.py linear.py
the gradient of an input that does not occur is left as it was
    std::memset(gradient, 0, static_cast<size_t>(neurons * all) * sizeof(T)); =>
== cuda/scan-inl.h: device cuda.py
with relu a gradient passes at h = 0
    select(less_equal(h, => select(less(h,
i of the first checkpoint past the length is not zeroed
    row = saved * segments(chain.steps) => row = saved * segments(chain.steps) + 1
== cuda/turn-inl.h: device cuda.py
gradients of the turn are taken for those of alpha and omega
    p.grad_parameters[kAlpha] || p.grad_parameters[kOmega] => false
== cuda/synapse.h: device cuda.py
segments of the weight gradient ascend
    (segment_count - 1 - row.t / kEventSegment) => row.t / kEventSegment
== cuda/rows-inl.h: device cuda.py
an index one past the last is taken
    index < events.inputs => index <= events.inputs
== cuda/masks.h: device cuda.py
thresholds are rounded down
    std::ceil( => std::floor(
a pixel that fired, kept or not, drops the spike after it
    before = p.mask[first + t * words] &= ~before;
    => { const uint64_t drawn = p.mask[first + t * words]; p.mask[first + t * words] &= ~before; before = drawn; }
== cuda/integer.h: integer cuda.py
sums are cut off too early
    kLargestCurrent = 1 << 17 => kLargestCurrent = 1 << 15
clamps are counted anew by each thread
    *total += clamped; => *total = clamped;
== cuda/sums-inl.h: device cuda.py
one half of the elements is added twice
    low + tree_sum<half>(x + half * stride => low + tree_sum<half>(x
== cuda/elements-inl.h: device cuda.py
bfloat16 half-way rounds up
    bits + 0x7FFF + odd => bits + 0x8000
== cuda/launch-inl.h: ptx
no barrier follows a load
    body.load(place); __syncthreads(); => body.load(place);
no kernel may use more shared memory than by default
    if (how.shared_bytes > kFewSharedBytes) queue.error = allow_shared<Body>(queue); =>
== cuda/lateral.h: ptx
host code calls a function of the device
    SRCELL_HOST_DEVICE inline LateralRows<T> rows_of( => SRCELL_INLINE LateralRows<T> rows_of(
a thread past the last neuron takes a step
    if (element >= plane) return; const Chain chain = chain_at(p.shape, element); using Made
    => if (element > plane) return; const Chain chain = chain_at(p.shape, element); using Made
== cuda/events.h: ptx
a block has half of the shared memory that it uses
    static_cast<int>(inputs * kWarp * int64_t(sizeof(T))); => static_cast<int>(inputs * kWarp * int64_t(sizeof(T)) / 2);
== cuda/synapse.h: ptx
bits are flipped, but not at once
    return atomicXor(word, bits); => const uint32_t before = *word; *word = before ^ bits; return before;
vectors are read where they are not aligned
    if (aligned && neurons % kWidth == 0 && neurons => if (aligned && neurons
"""

# The same for files of python/srcell.
PYTHON = """
== benchmark/cases.py: benchmark.py cli.py
threads that are asked for replace those of a setting
    threads=setting.threads or threads => threads=threads or setting.threads
== data/loader.py: data.py sequences.py processes.py
an error in a worker process keeps its traceback
    return None if found is None else found[1] => return None
== data/recordings.py: recordings.py event_recordings.py data.py
the cached file does not depend on the prefix
    us-prefix{prefix}.safetensors => us.safetensors
a label equal to the number of classes is accepted
    labels.max() >= classes: => labels.max() > classes:
== data/cochlea.py: cochlea.py
a filter is one half wider
    width = 1.019 * => width = 1.5 *
a filter's gain is not 1
    [1 / gain, -zero / gain, => [1.0, -zero,
two sections of a filter have the same zero
    ((1, 1), (-1, 1), (1, -1), (-1, -1)) => ((1, 1), (1, 1), (1, -1), (-1, -1))
the bands end below the highest
    np.linspace(ends[0], ends[1], self.bands) => np.linspace(ends[0], ends[1], self.bands, endpoint=False)
frames are cut to whole samples
    return round(self.frame * self.rate) => return int(self.frame * self.rate)
the smoothing is that of its first order
    -math.expm1(-1 / (self.smoothing * self.rate)) => 1 / (self.smoothing * self.rate)
the slow mean follows each sample
    -math.expm1(-self.hop / => -math.expm1(-1 /
events have one input for each band
    2 * self.bands if self.threshold => self.bands if self.threshold
events come in the last step of a frame
    counts[sample, : len(offsets) - 1, 0] => counts[sample, : len(offsets) - 1, -1]
currents are those of the first step of a frame alone
    dense.repeat_interleave(self.hold, 0) => dense
samples past the end of a sound are heard
    take(wave[:end]) => take(wave)
lengths count unfinished frames
    ends // self.hop * self.hold => ends * self.hold // self.hop
an offset for each of other bands
    not in (1, self.bands) => not in (1, self.bands, 2)
a frame too long for an int
    self.frame * self.rate > 2**21 or =>
the deviation is measured over bands
    frames.std(0) => frames.std()
a silent band gets an infinite scale
    np.where(measured > 0, measured, deviation) => measured
views that torch negates are read without it
    .resolve_neg() =>
== data/sounds.py: sounds.py
one channel stands for all
    scaled.mean(1) => scaled[:, 0]
silence of 8 bits is not 0
    silence = 128 => silence = 127
integers are scaled to one half
    2.0 ** (8 * samples.dtype.itemsize - 1) => 2.0 ** (8 * samples.dtype.itemsize)
resampling the other way
    rate // common, found // common => found // common, rate // common
samples beyond full scale are kept
    np.clip(samples, -1, 1) => samples
NaN is read
    if not np.isfinite(samples).all(): => if np.isinf(samples).any():
floats of 16 bits are read
    not in (4, 8) => not in (2, 4, 8)
loud negative floats are read
    float(np.abs(samples).max()) => float(samples.max())
a truncated file is read up to its end
    size > self.ID => size > 2 * self.ID
the lowest rate is refused
    not LOWEST_RATE <= rate <= => not LOWEST_RATE < rate <=
a folder within a hidden one is empty
    path.relative_to(folder).parts => path.parts
files in hidden folders are read
    any(part.startswith(".") for part in path.relative_to(folder).parts) => path.name.startswith(".")
endings in capitals are skipped
    path.suffix.lower() => path.suffix
a label goes on to the last "_"
    path.stem.partition("_")[0] => path.stem.rpartition("_")[0]
integers are sorted as texts
    if integers else (0, name) => if not integers else (0, name)
integers of ten digits are sorted as texts
    {1,18} => {1,9}
files come in the order of their labels' table
    for path in sorted(found) => for path in found
a bool is a label
    or isinstance(label, bool) =>
a second label of a file replaces the first
    if path in found: => if not path:
a second row of a file replaces the first
    if name in labels: => if not name:
a byte order mark is part of a column's name
    utf-8-sig => utf-8
selected sounds keep the longest length
    self.waves[index, : longest(lengths)] => self.waves[index]
sounds of one length have lengths
    None if same else lengths => lengths
== data/downloads.py: downloads.py
a file with another checksum is taken
    if not md5 or found == md5: => if found:
a cut download begins anew
    or int(begin[1]) != done: => or done:
a server that sends another part is believed
    begin is None or int(begin[1]) != done: => begin is None:
a cut connection ends a file
    if total is not None and done < total: => if total is None and done:
a busy server is not asked again
    final=error.code not in {*AGAIN, 416} => final=True
a broken connection is an error of another kind
    except (OSError, HTTPException) as error: => except OSError as error:
== data/spoken_digits.py: sounds.py
one more recording is for testing
    number < TEST_RECORDINGS => number <= TEST_RECORDINGS
the speaker held out is trained on
    speaker == held_out => speaker != held_out
any folder of recordings will do
    recordings.is_dir() and not NAMES.keys().isdisjoint(os.listdir(recordings)) => recordings.is_dir()
the root itself is not looked at
    *(root / name for name in FOLDERS), root) => *(root / name for name in FOLDERS),)
an incomplete folder is read
    if missing: => if len(missing) == len(NAMES):
links in an archive are followed
    path[1] in NAMES and member.isreg() => path[1] in NAMES
recordings anywhere in an archive are read
    r"[^/]+/recordings/([^/]+)" => r".*/?recordings/([^/]+).*"
a download that is not compressed as it should be
    EOFError, zlib.error) as error => EOFError) as error
a download that ends early
    (tarfile.TarError, OSError, EOFError, => (tarfile.TarError, OSError,
the checksum is not compared
    if digest.hexdigest() != SHA256: => if not digest:
the checksum leaves out the names
    b"".join(name.encode() + found[name] for name in NAMES) => b"".join(found[name] for name in NAMES)
a download by another process is an error
    if _find(root) is None: => if root:
== events/batch.py: events.py
density leaves out the inputs
    max(steps * batch * inputs, 1) => max(steps * batch, 1)
half precision becomes events
    (torch.bool, torch.float32, torch.float64) => (torch.bool, torch.float16, torch.float32, torch.float64)
== events/faults.py: event_faults.py events.py
a descent of the offsets is named one early
    return "descent", row + 1 => return "descent", row
== functional/layer.py: src.py linear.py gradients.py bits.py
one parameter as a tensor beside numbers
    any(isinstance(value, Tensor) for value in parameters) => all(isinstance(value, Tensor) for value in parameters)
== hardware/vhdl.py: hardware.py
text after the last ';' is a statement
    text.split(";")[:-1] => text.split(";")
== layers/constants.py: modules.py checkpoint.py readout.py
constants become parameters in silence
    held != self.get_extra_state()[0] => held > self.get_extra_state()[0]
== layers/integer.py: integer.py integer_models.py
a single weight is clamped to its own deviation
    weight.numel() > 1 => weight.numel() > 0
== models/classifier.py: models.py conv.py
a linear readout reads all neurons, also in training
    if isinstance(self.readout, LinearReadout): spikes => if False: spikes
fan-out ignores the padding
    layer.stride, layer.padding, layer.dilation => layer.stride, 0, layer.dilation
== nir/recordings.py: nir.py
an index one past the last input is accepted
    (idx >= inputs) => (idx > inputs)
== onnx/_graph.py: onnx.py
the step after the last one counts
    op.Less(op.Unsqueeze(steps, => op.LessOrEqual(op.Unsqueeze(steps,
== ops/_layer.py: operators.py src.py linear.py
an output_mask that is too long is accepted
    if len(mask) != expected: => if len(mask) < expected:
== ops/src_dense.py: linear.py linear_gradients.py works.py
a call within a transform chooses another method than the one around it
    "auto" and not call.save: => "auto":
== ops/src_events.py: linear_gradients.py linear.py operators.py
the gradients of values and weights are asked for crosswise
    wanted=["values", "weight"] => wanted=["weight", "values"]
== runtime.py: runtime.py
offsets beside a dense input are ignored
    values is not None or offsets is not None => values is not None and offsets is not None
a prefix of 0 is refused
    LatencyEncoding")), ("prefix", 0) => LatencyEncoding")), ("prefix", 1)
== training/progress.py: checkpoint.py
an accuracy above 1 is accepted
    0 <= value <= limit => 0 <= value <= 2 * limit
== training/run_folder.py: run_folder.py cli.py training.py
where data are is recorded only if nothing changed
    if data != self.data: => if data == self.data:
== training/samples.py: config.py training.py cli.py
the rate encoding of a run is never thinned
    config.prefix, config.thinned => config.prefix, False
== training/trainer.py: optimisation.py training.py processes.py
the schedule ends with the first epoch
    config.epochs * len(self.loader) => len(self.loader)
"""

TABLES = {"csrc/": TABLE, "python/srcell/": PYTHON}


class Mutant(NamedTuple):
    """A change in a file: the text that matches the pattern `old` becomes `new`."""

    file: str
    tests: list[str]
    breaks: str
    old: str
    new: str

    def apply(self, text: str) -> str:
        """The text of the file with the change made."""
        changed, count = re.subn(self.old, lambda _: self.new, text)
        if count != 1:
            sys.exit(f"{self.file}: {self.breaks}: expected the old text once, got it {count} times")
        return changed


def mutants() -> list[Mutant]:
    """The mutants of both tables, their files from the root of the repository."""
    found = []
    parts = [(folder, part) for folder, table in TABLES.items() for part in re.split(r"^== ", table, flags=re.M)[1:]]
    for folder, part in parts:
        head, _, body = part.partition("\n")
        file, _, tests = head.partition(": ")
        for breaks, change in re.findall(r"^(\S.*)\n((?: +.*\n)+)", body, flags=re.MULTILINE):
            old, _, new = change.partition("=>")
            pattern = r"\s+".join(map(re.escape, old.split()))
            found.append(Mutant(folder + file, tests.split(), breaks, pattern, new.strip()))
    return found


def succeeds(*command: str | Path, **environment: str) -> bool:
    """Whether a command exits with 0 within TIMEOUT."""
    try:
        done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, timeout=TIMEOUT)
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False


def configure() -> None:
    """Configure a build of the C++ tests and both modules for this Python; warnings are not errors."""
    options = {
        "SRCELL_PYTHON": "ON",
        "SRCELL_CUDA": "OFF",
        "SRCELL_WERROR": "OFF",
        "SRCELL_LEAVE_OUT": "avx512" if "--every-isa" in sys.argv else "avx2;avx512",  # whose files have no mutants
        "CMAKE_CXX_FLAGS_RELEASE": "-O1 -march=native -DNDEBUG",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    flags = [f"-D{name}={value}" for name, value in options.items()]
    subprocess.run(["cmake", "--preset", "release", "-B", BUILD, *flags], cwd=ROOT, check=True, capture_output=True)


def install(module: bytes) -> None:
    """Put a compiled module in the place of the installed one, in a new file: this process has mapped the old one."""
    made = INSTALLED.with_suffix(".made")
    made.write_bytes(module)
    os.replace(made, INSTALLED)


def passes_in_the_emulator() -> bool:
    """Compile the CUDA module; check the code, and run its tests from its PTX."""
    flags = (f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
    if not all(
        succeeds("cmake", *command) for command in (("--preset", "ptx", *flags), ("--build", "--preset", "ptx"))
    ):
        sys.exit("ptx: the build failed")
    checks = (("check_cuda.py", "build/ptx"), ("run_ptx.py",))
    return all(succeeds(sys.executable, f"tools/{name}", *arguments) for name, *arguments in checks)


def passes(test: str, mutated: str = "csrc/", markers: Sequence[str] = ("-m", "")) -> bool:
    """Run the test; if the mutated file is compiled, build what the test needs first."""
    if test == "ptx":
        return passes_in_the_emulator()
    in_python = test.endswith(".py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", *markers, f"tests/test_{test}"]
    if not mutated.startswith("csrc/"):
        return succeeds(*command)
    modules = ["_core", *(["cuda_on_host"] if test == "cuda.py" else [])]  # no other test runs the kernels of CUDA
    targets = modules if in_python else [f"srcell_test_{test}"]
    if not succeeds("cmake", "--build", BUILD, "--target", *targets):
        sys.exit(f"{targets}: the build failed")
    if not in_python:
        return succeeds("ctest", "--test-dir", BUILD, "-R", f"^{test}$")
    (module,) = BUILD.glob("_core*.so")
    install(module.read_bytes())
    if test != "cuda.py":
        return succeeds(*command)
    (on_host,) = BUILD.glob("on_host/_cuda*.so")
    return succeeds(*command, SRCELL_CUDA_ON_HOST=str(on_host))


def killer(mutant: Mutant, markers: Sequence[str]) -> str | None:
    """The first test that fails on the mutant, or None if it survives."""
    path = ROOT / mutant.file
    original = path.read_text()
    try:
        path.write_text(mutant.apply(original))
        return next((test for test in mutant.tests if not passes(test, mutant.file, markers)), None)
    finally:
        path.write_text(original)


def main() -> None:
    """Run the chosen mutants and print a line for each."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    markers = () if "--every-change" in sys.argv else ("-m", "")
    chosen = [m for m in mutants() if not words or any(w in f"{m.file}: {m.breaks}" for w in words)]
    for mutant in chosen:
        mutant.apply((ROOT / mutant.file).read_text())
    built, survivors = INSTALLED.read_bytes(), 0
    try:
        if any(mutant.file.startswith("csrc/") for mutant in chosen):
            configure()
        for test, folder in sorted({(test, m.file.partition("/")[0]) for m in chosen for test in m.tests}):
            if not passes(test, f"{folder}/", markers):
                sys.exit(f"{test}: the test fails without a mutant")
        for mutant in chosen:
            by = killer(mutant, markers)
            survivors += by is None
            print(f"{mutant.file}: {mutant.breaks}: {f'killed by {by}' if by else 'SURVIVED'}", flush=True)
    finally:
        install(built)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
