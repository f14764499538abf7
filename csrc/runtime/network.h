// A trained network that runs without torch and without Python: built from the tensors of a file, it classifies batches
// of events and streams of steps with the kernels of csrc/cpu. The bindings and the C interface call it; it never looks
// inside the equations.
//
// The spikes equal those of the exported layers bit for bit, on every ISA and for every number of threads. The readout
// sums in double and in its own order, so that a stream and a batch give the same logits (readout.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "../cpu/block.h"
#include "../cpu/kernels.h"
#include "../cpu/turn.h"
#include "aligned_array.h"
#include "cochlea.h"
#include "convolution.h"
#include "delays.h"
#include "learning_rule.h"
#include "readout.h"
#include "sequence.h"
#include "tensor_file.h"

namespace srcell {

// What a call of a layer reads beside its state.
struct LayerInput {
    ScanShape shape;
    Events<float> events;  // at the weights: delayed ones have arrived
    // Of a stream's step, and not of a run: the spikes that arrive through delayed recurrent weights; and the memory
    // that the layer says it needs.
    Maybe<const Events<float>> arrivals;
    Maybe<void> memory;
    // Outputs that a backward pass reads, as those of TracedForward: both or neither, and none of a convolution.
    Maybe<float> trace = nullptr, checkpoints = nullptr;
};

// A layer's float neurons in the form that the kernels take, with their weights packed once.
struct FloatNeurons {
    using Number = float;
    Aligned<float> weight;                         // (event_tiles(N), K, event_tile_width(N)), or empty
    std::optional<StoredConvolution> convolution;  // instead of the weight
    Aligned<float> lateral;                        // recurrent weights (N, lateral_width(N)), or empty
    std::vector<float> parameters[kParameters];    // one element, or N; none if the file has none: then the default
    CellParameters<float> cell;                    // points to the parameters
    OwnTurn<float> turn;                           // of resonant neurons; otherwise empty
    StoredDelays delays;                           // of the spikes on their way through recurrent weights

    bool resonate() const { return !turn.empty(); }
    bool run(const Kernels& kernels, const LayerInput& input, const float* before, float* spikes, float* after) const;
};

// The same for integer neurons.
struct IntegerNeurons {
    using Number = int16_t;
    Aligned<int16_t> weight;  // (event_tiles(N), K, integer_tile_width(N))
    IntegerCell cell;
    int64_t exact;  // as in IntegerForward

    bool run(const Kernels& kernels, const LayerInput& input, const int16_t* before, float* spikes,
             int16_t* after) const;
};

struct NetworkLayer {
    // A column for each tap of each input, and a last one for a constant current: a dense weight is (neurons, columns).
    int64_t inputs, columns, neurons;
    StoredDelays delays;  // of the inputs
    bool constant;        // the last column acts at every step
    std::variant<FloatNeurons, IntegerNeurons> kind;
    std::vector<char> initial;  // (3, N): i, h and hs before the first step; empty: zero; q is always zero
    LearningRule rule;

    bool is_integer() const { return std::holds_alternative<IntegerNeurons>(kind); }
    bool lateral() const { return !is_integer() && std::get<FloatNeurons>(kind).lateral.size() > 0; }
    bool has(int parameter) const {
        return !is_integer() && !std::get<FloatNeurons>(kind).parameters[parameter].empty();
    }
    bool resonates() const { return !is_integer() && std::get<FloatNeurons>(kind).resonate(); }
    // The convolution before the neurons.
    Maybe<const StoredConvolution> convolution() const;
    // Neurons that share their weights and parameters: those of a channel, otherwise 1.
    int64_t places() const { return convolution() ? convolution()->of.view().places() : 1; }
    // The delays of recurrent weights; without terms if there are none.
    const StoredDelays& lateral_delays() const;
    // The most steps from the departure of an input or of a spike to its arrival, 0 without delays.
    int64_t longest_delay() const { return std::max(delays.longest, lateral_delays().longest); }
    bool delayed() const { return delays || lateral_delays(); }
    // The weights of the layer, recurrent ones included.
    int64_t weights() const;
    // Bytes of memory that a step of a stream needs beside the states.
    int64_t memory_bytes(const Kernels& kernels) const;
    // Arrays of a state.
    int64_t states() const { return states_of(resonates()); }
    // Packs the weights (neurons, columns) of float neurons, and the recurrent ones, unless null.
    void pack(const Kernels& kernels, const float* weight, const float* lateral);
    // The bytes of a state (states(), B, N).
    int64_t state_bytes(int64_t batch) const;
    // What is wrong with a state of B samples; "" if nothing is.
    std::string fault_of(const char* state, int64_t batch) const;
    // Writes the state before the first step.
    void initial_state(int64_t batch, char* to) const;
    // Writes i, h and hs of a state as floats, (3, B, N).
    void values(const char* state, int64_t batch, float* to) const;
    // Runs the layer over B samples, from the state `before` to the state `after`, and writes its spikes (T, B, N).
    // Returns whether the events were valid.
    bool run(const Kernels& kernels, LayerInput input, const char* before, float* spikes, char* after) const;
};

// Events of B rows or of B samples with one more input, which is active with value 1 at every step, last in its row.
class WithConstant {
  public:
    // Makes room for rows and events, before a stream that allocates nothing.
    void reserve(int64_t rows, int64_t events);
    // The events must be valid; what is returned lives as long as this object, until the next call.
    Events<float> append(const ScanShape& shape, const Events<float>& events);

  private:
    std::vector<int64_t> offsets_;
    std::vector<int32_t> indices_;
    std::vector<float> values_;
};

// Events after their delays, as srcell.delay makes them, in memory of their own.
class DelayedInput {
  public:
    DelayedInput(const Kernels& kernels, const ScanShape& shape, const Events<float>& events,
                 const StoredDelays& delays);

    const Events<float>& events() const { return events_; }

    // The number of events that arrive before the end of their sample.
    static int64_t count(const Kernels& kernels, const ScanShape& shape, const Events<float>& events,
                         const StoredDelays& delays);

  private:
    Block<int64_t> starts_, cursors_, offsets_;
    Block<int32_t> indices_;
    Block<float> values_;
    Events<float> events_ = {};
};

// For a layer of integer neurons: replaces event values that are all 1 by null, and throws std::invalid_argument for
// any others, because integer neurons count each event as 1.
void leave_out_ones(const NetworkLayer& layer, Events<float>& events);

// Events whose rows have not been checked. The arrays are those of Events; lengths are (B,) in [0, T].
struct NetworkInput {
    int64_t steps, batch;
    Events<float> events;
    Maybe<const int64_t> lengths;
};

// Throws std::invalid_argument for events that are not valid.
void check_events(const NetworkInput& input);

// The outputs of a run.
struct NetworkOutput {
    Maybe<float> logits;         // (B, C), or (T, B, C)
    Maybe<float* const> spikes;  // for each layer (T, B, N), or null
    // Numbers over all samples: both, or neither.
    Maybe<int64_t> events;      // (1 + layers,): events of the input, once it is standardised, and of each layer
    Maybe<int64_t> operations;  // (layers,): weights through which the events of a layer pass, recurrent ones included
    bool every_step = false;  // the logits at every step, 0 past a sample's length; otherwise those after the last one
};

constexpr int kMaxThreads = 1024;

// The number of rows, B * T. Throws std::invalid_argument for negative sizes or an overflow.
int64_t count_rows(int64_t steps, int64_t batch);

class Network {
  public:
    // Throws FileError.
    explicit Network(const TensorFile& file);

    // Runs on at most `threads` threads. Throws std::invalid_argument for invalid events, and std::bad_alloc.
    void run(const NetworkInput& input, const NetworkOutput& output, int threads) const;

    const std::vector<NetworkLayer>& layers() const { return layers_; }
    const Readout& readout() const { return readout_; }
    // What makes the inputs of sounds; without bands if the file has none.
    const Cochlea& cochlea() const { return cochlea_; }
    // Of the inputs, in all calls; empty if the file has none.
    const Standardisation& standardisation() const { return standardisation_; }
    // How a stream takes the elements of a sequence.
    const Holding& holding() const { return holding_; }
    // What the network was read from.
    const TensorFile& file() const { return file_; }
    const std::map<std::string, std::string>& texts() const { return file_.texts; }
    // The name of each class, or none.
    const std::vector<std::string>& class_names() const { return class_names_; }
    int64_t inputs() const { return layers_.front().inputs; }
    int64_t outputs() const { return layers_.back().neurons; }
    // Neurons of the largest layer.
    int64_t widest() const;
    const Kernels& kernels() const { return *kernels_; }

    // A hash of all texts and tensors of the file: a state saved by a network with another hash is refused.
    uint64_t fingerprint() const { return fingerprint_; }

    // Bytes of the weights and parameters in the number types in which they are read, without the padding that packing
    // adds.
    int64_t bytes() const;

  private:
    friend class Learner;  // which changes the weights of a network of its own
    void run_samples(const NetworkInput& input, const NetworkOutput& output, int64_t first, int64_t batch,
                     int threads) const;

    std::vector<NetworkLayer> layers_;
    Readout readout_;
    std::vector<std::string> class_names_;
    Cochlea cochlea_;
    Standardisation standardisation_;
    Holding holding_;
    TensorFile file_;
    const Kernels* kernels_;
    uint64_t fingerprint_ = 0;
};

// A network that advances one step at a time over B samples side by side. The network must outlive it. Nothing is
// allocated after the constructor, unless a row of delayed or constant inputs does not ascend. Streams of one network
// may run in different threads; a stream belongs to one thread at a time.
class Stream {
  public:
    Stream(const Network& network, int64_t batch);

    // Advances one step, with the events of row b for sample b: offsets (B + 1,), `count` indices and values, as in
    // Events. Throws std::invalid_argument for invalid events; the state is then unchanged.
    void step(const int64_t* offsets, const int32_t* indices, const float* values, int64_t count);
    // Advances one step, with the nonzero elements of a dense input (B, K).
    void step_dense(const float* input);
    // Takes the next element (B, K) of B sequences: the steps of the prefix before the first element since the stream
    // was made or reset, then the steps for which the network holds it. Returns their number. Throws
    // std::invalid_argument; the state is then unchanged.
    int64_t feed(const float* values);
    // Hears samples of a sound, of a network that has a cochlea, with B = 1: takes the steps of each frame that they
    // complete, and returns their number. Throws std::invalid_argument; the state is then unchanged.
    int64_t hear(const float* samples, int64_t count);

    // A layer's spikes in the last step, (B, N).
    const float* spikes(size_t layer) const { return parts_[layer].spikes[now_].data(); }
    // Writes i, h and hs of a layer, (3, B, N).
    void values(size_t layer, float* to) const;
    // Writes q of a layer whose neurons resonate, (B, N).
    void quadrature(size_t layer, float* to) const;
    // Writes the current logits, (B, C).
    void logits(float* to) const;

    void reset();
    // The state of all layers and of the readout, as bytes that only a stream of the same network and the same B can
    // restore. They carry the version of their layout.
    size_t state_bytes() const;
    void save(void* to) const;
    // Throws std::invalid_argument for the state of another network or batch; this stream's state is then unchanged.
    void restore(const void* from, size_t bytes);

    int64_t batch() const { return batch_; }
    const Network& network() const { return network_; }

  private:
    struct Part {
        Aligned<char> state[2];    // before and after a step; they swap roles
        Aligned<float> spikes[2];  // (B, N); swapped as well
        Aligned<char> memory;      // scratch of a layer, of memory_bytes()
        DelayLine inputs, own;     // of the layer's inputs, and of its spikes on their way through recurrent weights
        WithConstant constant;     // the inputs of a layer that has one
    };
    // Event rows listed from a dense array (B, K).
    struct Rows {
        Aligned<uint64_t> mask;
        Aligned<int64_t> offsets;
        Aligned<int32_t> indices;
        Aligned<float> values;
    };
    static int64_t checked(const Network& network, int64_t batch);
    Events<float> rows_of(const float* elements, int64_t inputs);
    void take(const Events<float>& events);
    void take_dense(const float* input);
    // Advances one step, with events that are standardised.
    void advance(Events<float> events);

    const Network& network_;
    int64_t batch_;
    std::vector<Part> parts_;
    Rows rows_;
    ReadoutState read_;
    std::optional<Hearing> hearing_;
    std::optional<StandardisedRows> standardised_;
    Aligned<int64_t> silence_;  // (B + 1,) offsets of a step of a prefix; empty without one
    bool fed_ = false;          // whether the prefix is past
    size_t now_ = 0;            // which of the two states is the present one
};

}  // namespace srcell
