// The C++ tests' problems made from a fuzz input: a layer, and event rows with or without faults.
#pragma once

#include <algorithm>

#include "../cpp/events_problem.h"
#include "input.h"

namespace srcell {

inline CellOptions cell_options(Input& in) {
    const int64_t steps = in.size(40), batch = in.size(4);
    const int64_t neurons = in.rarely(8) ? in.size(300) : in.size(24);
    const auto bits = static_cast<unsigned>(in.bytes(3));
    const auto bit = [&](int k) { return static_cast<bool>(bits >> k & 1); };
    CellOptions o = {steps, batch, neurons, bit(0), bit(1), bit(2), bit(3), bit(4), bit(5), bit(6), {}};
    if (bit(7)) o.shared = bits >> 8 & 127;
    if (bit(15)) o.unwanted = bits >> 16 & 63;
    if (o.unwanted == 63) o.parameters = false;
    if (in.rarely(2)) {
        o.per_neuron = false;
        o.batch = 0;
        o.steps = in.vast();
        o.neurons = in.vast();
        return o;
    }
    if (in.rarely(96))
        for (int64_t b = 0; b < batch; ++b) o.lengths.push_back(in.integer<int64_t>(steps / 2));
    return o;
}

inline int64_t input_count(Input& in, const CellOptions& o) {
    return o.neurons > 1000 ? 0 : in.rarely(16) ? in.size(200) : in.size(24);
}

// The same options with lengths clamped to [0, T].
inline CellOptions clamped(CellOptions o) {
    o.lengths = clamped(o.lengths, o.steps);
    return o;
}

template <class T>
void spoil(Input& in, CellInputs<T>& cell) {
    if (in.rarely(64))
        for (Array<T>& x : cell.parameters) in.spoil(x);
    for (Array<T>* x : {&cell.i0, &cell.h0, &cell.hs0, &cell.grad_spikes, &cell.grad_i, &cell.grad_h, &cell.grad_hs})
        in.spoil(*x);
}

template <class T>
Array<T> input_current(Input& in, CellInputs<T>& cell) {
    Array<T> current = cell.plane(cell.o.steps);
    for (T& c : current) c *= 4;
    in.spoil(current);
    return current;
}

// Offsets and indices as a caller may have altered them after they were validated.
template <class T>
void corrupt(Input& in, EventRows<T>& rows) {
    for (int64_t k = 1 + in.below(3); k > 0; --k) {
        if (in.bit() && rows.indices.size()) {
            const int64_t at = in.below(rows.indices.size());
            rows.indices[at] = in.integer<int32_t>(rows.inputs);
        } else {
            const int64_t at = in.below(rows.offsets.size());
            rows.offsets[at] = in.integer<int64_t>(in.bit() ? rows.indices.size() : rows.offsets[at]);
        }
    }
}

inline const Kernels& any_table(Input& in) {
    const std::vector<const Kernels*> available = available_kernels();
    return *available[static_cast<size_t>(in.below(static_cast<int64_t>(available.size())))];
}

template <class T>
bool same(const Array<T>& a, const Array<T>& b) {
    Result<T> x, y;
    x.add(a);
    y.add(b);
    return x == y;
}

// Whether the kernels must accept a sample's rows, by the definition in params.h.
template <class T>
bool sample_is_valid(const CellOptions& o, const EventRows<T>& rows, int64_t sample) {
    const int64_t count = rows.indices.size(), first = sample * o.steps, last = first + o.steps;
    if (sample == 0 && rows.offsets[0] != 0) return false;
    if (sample == o.batch - 1 && rows.offsets[last] != count) return false;
    for (int64_t row = first; row <= last; ++row)
        if (rows.offsets[row] < (row > first ? rows.offsets[row - 1] : 0) || rows.offsets[row] > count) return false;
    for (int64_t e = rows.offsets[first]; e < rows.offsets[last]; ++e)
        if (rows.indices[e] < 0 || rows.indices[e] >= rows.inputs) return false;
    return true;
}

// The events of the samples that are valid.
template <class T>
EventRows<T> usable(const CellOptions& o, const EventRows<T>& rows) {
    std::vector<int64_t> offsets = {0};
    std::vector<int32_t> indices;
    std::vector<T> values;
    for (int64_t row = 0; row < o.batch * o.steps; ++row) {
        if (sample_is_valid(o, rows, row / o.steps)) {
            const int64_t begin = rows.offsets[row], end = rows.offsets[row + 1];
            indices.insert(indices.end(), rows.indices.begin() + begin, rows.indices.begin() + end);
            values.insert(values.end(), rows.values.begin() + begin, rows.values.begin() + end);
        }
        offsets.push_back(static_cast<int64_t>(indices.size()));
    }
    return {Array<int64_t>(offsets), Array<int32_t>(indices), Array<T>(values), rows.inputs, rows.with_values};
}

template <class T>
int64_t first_invalid(const CellOptions& o, const EventRows<T>& rows) {
    for (int64_t sample = 0; sample < o.batch; ++sample)
        if (!sample_is_valid(o, rows, sample)) return sample;
    return -1;
}

// Altered rows as the device reads them: the events of each row that lie within the arrays.
template <class T>
EventRows<T> as_counted(const EventRows<T>& rows) {
    const int64_t count = rows.indices.size();
    std::vector<int64_t> offsets = {0};
    std::vector<int32_t> indices;
    std::vector<T> values;
    for (int64_t row = 0; row + 1 < rows.offsets.size(); ++row) {
        const bool outside = rows.offsets[row] < 0 || rows.offsets[row + 1] > count;
        for (int64_t e = rows.offsets[row]; !outside && e < rows.offsets[row + 1]; ++e) {
            if (rows.indices[e] < 0 || rows.indices[e] >= rows.inputs) continue;
            indices.push_back(rows.indices[e]);
            values.push_back(rows.values[e]);
        }
        offsets.push_back(static_cast<int64_t>(indices.size()));
    }
    return {Array<int64_t>(offsets), Array<int32_t>(indices), Array<T>(values), rows.inputs, rows.with_values};
}

}  // namespace srcell
