// Learning where a network runs: a learner takes batches of events with their targets, and changes the weights of a
// network of its own by backpropagation, with the kernels that torch's gradients call, and Adam. Knows neither Python
// nor the C interface.
//
// Every sum has a fixed order: the weights after any number of steps have the same bits on every ISA, for every number
// of threads, and after a state was saved and restored.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "network.h"

namespace srcell {

struct LearningSettings {
    double rate = 1e-3, clip_norm = 1;  // clip_norm 0: gradients are not clipped
    bool readout_alone = false;
    // A linear readout for so many other classes replaces that of the network, with weights of 0; 0: none does.
    int64_t classes = 0;
    std::vector<std::string> class_names;  // none, or one for each of these
};

// Labels, for cross-entropy, or else values, for the mean squared error: of each sample after its last step or, with
// `every_step`, of all steps of each sample; what lies past a sample's length is not read.
struct LearningTargets {
    Maybe<const int64_t> labels;  // (B,) or (B, T), in [0, C)
    Maybe<const float> values;    // (B, C) or (B, T, C)
    bool every_step;
};

// Memory that a call takes in pieces, and that the next call takes again, in the same order.
class Pieces {
  public:
    template <class T>
    T* take(int64_t count) {
        constexpr auto size = static_cast<int64_t>(sizeof(T));
        const int64_t bytes = count > INT64_MAX / size ? -1 : count * size;
        if (used_ == pieces_.size()) pieces_.emplace_back();
        Aligned<char>& piece = pieces_[used_++];
        if (piece.size() < bytes || bytes < 0) piece = Aligned<char>(), piece = Aligned<char>(bytes);
        return reinterpret_cast<T*>(piece.data());
    }

    // Gives the pieces back that were taken since `used` was read.
    size_t used() const { return used_; }
    void give_back(size_t used) { used_ = used; }

    int64_t bytes() const {
        int64_t sum = 0;
        for (const auto& piece : pieces_) sum += piece.size();
        return sum;
    }

  private:
    std::vector<Aligned<char>> pieces_;
    size_t used_ = 0;
};

// One call at a time: a second one, of another thread, throws std::invalid_argument. After any exception, what was
// learnt is as before the call.
class Learner {
  public:
    // Numbers that learn: a tensor of the file.
    struct Part {
        std::string name;
        std::vector<int64_t> shape;
        int64_t first, count;  // in all numbers
    };

    // Keeps nothing of the network. Throws std::invalid_argument.
    Learner(const Network& network, const LearningSettings& settings);
    Learner(const Learner&) = delete;
    Learner& operator=(const Learner&) = delete;

    // Learns from a batch, and returns its loss before that. Throws std::invalid_argument, also for a loss or a
    // gradient that is not finite, and std::bad_alloc.
    double step(const NetworkInput& input, const LearningTargets& targets, int threads);
    // The loss and its gradient, of all numbers, without a step.
    double gradient(const NetworkInput& input, const LearningTargets& targets, int threads, float* to);

    // The bytes of a file of the network as it is now.
    std::vector<unsigned char> file() const;

    // What was learnt and Adam's moments, as bytes that only a learner of the same network, classes and layers can
    // restore; its rate and norm are its own.
    size_t state_bytes() const;
    void save(void* to) const;
    void restore(const void* from, size_t bytes);

    const std::vector<Part>& parts() const { return parts_; }
    const Network& network() const { return network_; }
    // Bytes of scratch, kept from call to call.
    int64_t scratch_bytes() const;

  private:
    // A layer's numbers among all, -1 where they do not learn.
    struct LayerPart {
        int64_t weight = -1, lateral = -1, bias = -1;
        bool autapses = true;      // otherwise the diagonal of the recurrent weights is 0 and stays 0
        std::vector<float> bound;  // of each bias
        std::vector<float>
            joined;  // (neurons, columns) of a layer with a constant current: its weights and, last, that
    };
    // What the forward pass of a layer leaves for its backward pass.
    struct Passed {
        Events<float> events;  // at the weights, without that of a constant current
        float *spikes, *trace, *checkpoints;
        const float* before;
    };
    struct Call;  // that a thread is in

    int64_t add_part(const std::string& name);
    void check(const NetworkInput& input, const LearningTargets& targets) const;
    double compute(const NetworkInput& input, const LearningTargets& targets, int threads);
    Events<float> kept(const Events<float>& events, int64_t rows);
    void forward(const NetworkInput& input, int threads, std::vector<Passed>& passed);
    double read(const NetworkInput& input, const LearningTargets& targets, const float* spikes, float* grad_spikes);
    double answer(const LearningTargets& targets, const double* sums, int64_t row, double weight, float* logits,
                  double* grad_logits, double* grad_weight, double* grad_bias);
    void backward(const ScanShape& shape, const std::vector<Passed>& passed, float* grad_spikes);
    const float* through_weights(const ScanShape& shape, size_t layer, const float* grad_current);
    void hold(size_t layer);
    void act();

    Network network_;  // its weights are what was learnt
    LearningSettings settings_;
    std::vector<Part> parts_;
    std::vector<LayerPart> layers_;
    int64_t readout_ = -1;  // the first of a linear readout's numbers
    Aligned<float> numbers_, acting_, gradient_, mean_, variance_;
    double steps_ = 0, mean_power_ = 1, variance_power_ = 1;  // steps, and Adam's betas to their power
    Pieces pieces_;
    mutable std::atomic<bool> busy_{false};
};

}  // namespace srcell
