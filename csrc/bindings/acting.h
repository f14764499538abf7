// What a layer computes with where its arguments hold something else: parameters clamped to their domains, one value
// for all neurons of a channel, recurrent weights without autapses, a start at rest; and the gradients of the arguments
// then. python/srcell/ops/_acting.py does the same on a GPU.
#pragma once

#include <algorithm>
#include <vector>

#include "../cpu/traced_backward.h"
#include "arguments.h"

namespace srcell {

// Writes the lowest h with h = tanh(gain h + bias) of each neuron, by bisection; NaN for NaN.
void find_rest(int64_t count, const double* bias, const double* gain, double* h);

// The values of a parameter as they act on each of `copies` neurons, clamped if there is a `row`.
template <class T>
const T* acting_values(const T* given, int64_t count, int64_t copies, const ParameterRow* row, Blocks& stand) {
    const T low = row ? static_cast<T>(row->least_learnt) : T(), high = row ? static_cast<T>(row->most_learnt) : T();
    const auto acting = [&](T x) { return !row ? x : x < low ? low : x > high ? high : x; };
    const auto inside = [&](T x) { return !row || !(x < low || x > high); };
    if (copies == 1 && std::all_of(given, given + count, inside)) return given;
    T* const made = stand.take<T>(count * copies);
    for (int64_t k = 0; k < count; ++k) std::fill_n(made + k * copies, copies, acting(given[k]));
    return made;
}

// Turns the gradients of what acts on `copies` neurons each, at `acting`, into those of the values, at `made`, which
// may be the same if copies is 1. Neighbouring values of `alike` have the same gradient, their sum. It is 0 where a
// value lies outside its domain and a descent step would move it further out.
template <class T>
void gradients_of_values(const T* given, int64_t count, int64_t copies, int64_t alike, const ParameterRow* row,
                         const T* acting, T* made) {
    if (copies != 1)
        for (int64_t k = 0; k < count; ++k) {
            double sum = 0;
            for (int64_t n = 0; n < copies; ++n) sum += static_cast<double>(acting[k * copies + n]);
            made[k] = static_cast<T>(sum);
        }
    if (!row) return;
    for (int64_t k = 0; k < count; k += alike) {
        double sum = 0;
        for (int64_t n = k; n < k + alike; ++n) sum += static_cast<double>(made[n]);
        const bool above = given[k] > static_cast<T>(row->most_learnt) && sum < 0;
        const bool below = given[k] < static_cast<T>(row->least_learnt) && sum > 0;
        if (above || below) std::fill_n(made + k, alike, T(0));
    }
}

// Recurrent weights with a diagonal of 0.
template <class T>
const T* without_autapses(const T* weight, int64_t neurons, Blocks& stand) {
    int64_t n = 0;
    while (n < neurons && weight[n * (neurons + 1)] == 0) ++n;
    if (n == neurons) return weight;
    T* const made = stand.take<T>(neurons * neurons);
    std::copy_n(weight, neurons * neurons, made);
    for (n = 0; n < neurons; ++n) made[n * (neurons + 1)] = 0;
    return made;
}

// The h of each neuron of a batch at rest. Neighbours that are alike are solved once.
template <class T>
const T* h_at_rest(const Parameter<T>& bias, T bias_max, const Parameter<T>& r, const Parameter<T>& rs, int64_t batch,
                   int64_t neurons, Blocks& stand) {
    std::vector<double> biases, gains;
    std::vector<size_t> place(static_cast<size_t>(neurons));
    for (int64_t n = 0; n < neurons; ++n) {
        const T own = bias.at(n);
        const double b = static_cast<double>(own > bias_max ? bias_max : own);
        const double gain = static_cast<double>(r.at(n)) + static_cast<double>(rs.at(n));
        if (biases.empty() || b != biases.back() || gain != gains.back()) biases.push_back(b), gains.push_back(gain);
        place[static_cast<size_t>(n)] = biases.size() - 1;
    }
    std::vector<double> found(biases.size());
    find_rest(static_cast<int64_t>(found.size()), biases.data(), gains.data(), found.data());
    T* const made = stand.take<T>(batch * neurons);
    for (int64_t n = 0; n < neurons && batch; ++n) made[n] = static_cast<T>(found[place[static_cast<size_t>(n)]]);
    for (int64_t b = 1; b < batch; ++b) std::copy_n(made, neurons, made + b * neurons);
    return made;
}

}  // namespace srcell
