// Turns the spikes of the last layer into logits. All sums are in double. First each neuron's spikes are summed step by
// step, o[n] = alpha * o[n] + s[n] from 0; then the o[n] are summed over the neurons in ascending order. Logits are
// rounded to float at the end, so a stream and a batch give the same bits. torch's readout computes float products in
// an order of its own, so its logits differ from these in the last digits.
#pragma once

#include <cstdint>
#include <vector>

#include "../cpu/kernels.h"
#include "aligned_array.h"
#include "tensor_file.h"

namespace srcell {

struct Readout {
    enum Kind { kNone, kVotes, kLinear } kind = kNone;
    int64_t classes = 0, neurons = 0;
    int64_t window = 0;  // kLinear: the number of last steps that count; 0: all
    double alpha = 1, inhibition = 0, temperature = 1;
    std::vector<float> weight, bias;  // kLinear: (C, N) and (C,)

    // The readout of a last layer of `neurons` neurons. Throws FileError.
    static Readout of(const TensorFile& file, int64_t neurons);

    // sums[n] = alpha * sums[n] + spikes[n].
    void add(const Kernels& kernels, double* sums, const float* spikes) const {
        kernels.leaky_sum(sums, spikes, neurons, alpha);
    }
    // Writes the logits (C,) of sums (N,).
    void logits(const double* sums, float* to) const;
    // Writes the gradient of the sums, (N,), of that of the logits, (C,).
    void back(const double* of_logits, double* of_sums) const;
};

// What the readout keeps for a stream of B samples: the sums over all steps so far or, with a window, the spikes of the
// last `window` steps.
class ReadoutState {
  public:
    ReadoutState(const Readout& readout, const Kernels& kernels, int64_t batch);

    void add(const float* spikes);
    // Writes (B, C).
    void logits(float* to) const;
    void reset();

    // The readout's part of a saved stream.
    size_t bytes() const {
        return static_cast<size_t>(sums_.size() + 1) * sizeof(double) +
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
    mutable Aligned<double> row_;  // (N,)
};

}  // namespace srcell
