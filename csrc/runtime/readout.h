// Turns the spikes of the last layer into logits. All sums are in double. First each neuron's spikes are summed step by
// step, o[n] = alpha * o[n] + s[n] from 0; then the o[n] are summed over the neurons in ascending order. Logits are
// rounded to float at the end, so a stream and a batch give the same bits. torch's readout computes float products in
// an order of its own, so its logits differ from these in the last digits. A skip connection adds a linear map of the
// network's input at the step of the logits, summed event by event in their order.
#pragma once

#include <cstdint>
#include <vector>

#include "../cpu/kernels.h"
#include "../params.h"
#include "aligned_array.h"
#include "tensor_file.h"

namespace srcell {

struct Readout {
    enum Kind { kNone, kVotes, kLinear } kind = kNone;
    int64_t classes = 0, neurons = 0;
    int64_t window = 0;  // kLinear: the number of last steps that count; 0: all
    double alpha = 1, inhibition = 0, temperature = 1;
    int64_t inputs = 0;                     // kLinear: K, those of the skip connection; 0: none
    std::vector<float> weight, bias, skip;  // kLinear: (C, N), (C,) and (C, K)

    // The readout of a last layer of `neurons` neurons, in a network of `inputs` inputs. Throws FileError.
    static Readout of(const TensorFile& file, int64_t neurons, int64_t inputs);

    // The number of tensors that it has in a file.
    size_t tensors() const { return kind == kNone ? 0 : kind == kVotes ? 1 : inputs ? 4 : 3; }

    // sums[n] = alpha * sums[n] + spikes[n].
    void add(const Kernels& kernels, double* sums, const float* spikes) const {
        kernels.leaky_sum(sums, spikes, neurons, alpha);
    }
    // Writes what the skip connection makes of a row of events, (C,); other events than those of inputs have no part.
    void pass(const Events<float>& events, int64_t row, double* to) const;
    // Writes the logits (C,) of sums (N,), and of what pass() wrote where there is a skip connection.
    void logits(const double* sums, const double* passed, float* to) const;
    // Writes the gradient of the sums, (N,), of that of the logits, (C,).
    void back(const double* of_logits, double* of_sums) const;
};

// What the readout keeps for a stream of B samples: the sums over all steps so far or, with a window, the spikes of the
// last `window` steps.
class ReadoutState {
  public:
    ReadoutState(const Readout& readout, const Kernels& kernels, int64_t batch);

    void add(const float* spikes);
    // Takes the network's input of the step that add() ends, (B,) rows of events; nothing without a skip connection.
    void pass(const Events<float>& events);
    // Writes (B, C).
    void logits(float* to) const;
    void reset();

    // The readout's part of a saved stream.
    size_t bytes() const {
        return static_cast<size_t>(sums_.size() + passed_.size() + 1) * sizeof(double) +
               static_cast<size_t>(recent_.size()) * sizeof(float);
    }
    char* save(char* to) const;
    const char* restore(const char* from);

  private:
    const Readout& readout_;
    const Kernels& kernels_;
    int64_t batch_;
    int64_t steps_ = 0;            // taken so far
    Aligned<double> sums_;         // (B, N) without a window
    Aligned<float> recent_;        // (window, B, N): step t at t % window
    Aligned<double> passed_;       // (B, C) with a skip connection: its part of the logits
    Aligned<double> next_;         // the same of the step that has begun
    mutable Aligned<double> row_;  // (N,)
};

}  // namespace srcell
