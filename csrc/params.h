// The plain structs that cross every boundary: pointers, sizes and options, nothing that allocates or owns.
// The bindings fill them, the dispatch table hands them on, the kernels read them. They know neither Python nor an ISA.
//
// Shapes use T steps, B samples, K inputs, N neurons. Every array is dense and row-major, needs no padding and no
// alignment beyond that of its element, and stays the caller's: it must outlive the call. No output may overlap an
// input or another output. Scratch means nothing before or after a call.
#pragma once

#include <cstdint>

// Functions that the host and a GPU both call.
#if defined(__CUDACC__)
#define SRCELL_HOST_DEVICE __host__ __device__
#else
#define SRCELL_HOST_DEVICE
#endif

namespace srcell {

// Neurons that a time loop takes side by side.
constexpr int64_t kTile = 128;

// States are kept for the backward pass every so many steps; between them the backward pass recomputes.
constexpr int64_t kSegment = 16, kEventSegment = 32;

// For any dividend: an empty array may have sizes near the largest.
SRCELL_HOST_DEVICE constexpr int64_t ceil_div(int64_t x, int64_t divisor) { return x / divisor + (x % divisor != 0); }

SRCELL_HOST_DEVICE inline int64_t segments(int64_t steps, int64_t segment = kSegment) {
    return ceil_div(steps, segment);
}

// What a neuron is made of, in the order of all lists.
enum CellParameter { kBias, kAlpha, kRho, kR, kRs, kZsHyp, kZsDep, kParameters };
constexpr const char* kParameterNames[kParameters] = {"bias", "alpha", "rho", "r", "rs", "zs_hyp", "zs_dep"};

// One value for the layer (stride 0; null: `constant`) or one value per neuron (stride 1).
template <class T>
struct Parameter {
    const T* data;
    int64_t stride;
    T constant = 0;
};

template <class T>
struct CellParameters {
    Parameter<T> of[kParameters];
};

struct ScanShape {
    int64_t steps, batch, neurons;
    const int64_t* lengths;  // (B,) each in [0, T], or null: every sample has T steps
    int threads;             // at most this many; results do not depend on it
};

// What every forward pass reads and writes, whatever the synapse.
template <class T>
struct CellForward {
    ScanShape shape;
    CellParameters<T> cell;
    const T *i0, *h0, *hs0;  // (B, N) each, or null: zero
    T* spikes;               // (T, B, N) out; zero past a sample's length
    T *i, *h, *hs;           // (B, N) out: the state after a sample's last step
};

// What every backward pass reads and writes, whatever the synapse.
template <class T>
struct CellBackward {
    ScanShape shape;
    CellParameters<T> cell;
    bool relu;                           // ds/dh = [h > 0]; otherwise 1
    bool recurrent;                      // follow h[t-1] and hs[t-1]; otherwise only the integrator carries a gradient
    const T* grad_spikes;                // (T, B, N), or null: zero
    const T *grad_i, *grad_h, *grad_hs;  // (B, N) each, gradients of the final state, or null: zero
    T *grad_i0, *grad_h0, *grad_hs0;     // (B, N) out
    // Gradients of the parameters, (1,) or (N,) out as the parameter's stride says; null: not wanted, but that of the
    // bias always is.
    T* grad_parameters[kParameters];
    // Scratch for the sums over the steps of each neuron of each sample, which are then added in a fixed tree:
    // (kParameters, B, N), or (1, B, N) where the bias's alone is wanted.
    T* partials;
};

template <class T>
struct ScanForward : CellForward<T> {
    const T* current;  // (T, B, N)
    T* checkpoints;    // (segments(T), 3, B, N) out: i, h, hs before every kSegment-th step,
                       // zero past a sample's length; null: inference
};

template <class T>
struct ScanBackward : CellBackward<T> {
    const T* current;      // (T, B, N) as in the forward pass
    const T* checkpoints;  // what the forward pass wrote
    T* grad_current;       // (T, B, N) out; zero past a sample's length
};

// The events of an EventBatch: row b * T + t holds those of sample b at step t. The kernels check every offset and
// index that they use, because a batch may have been altered since it was validated.
template <class T>
struct Events {
    const int64_t* offsets;  // (B * T + 1,) ascending from 0 to `count`
    const int32_t* indices;  // (count,) in [0, K)
    const T* values;         // (count,), or null: all ones
    int64_t count, inputs;
};

// The neurons of a layer behind events are cut into tiles of equal width, the last one narrower.
SRCELL_HOST_DEVICE inline int64_t event_tiles(int64_t neurons) { return ceil_div(neurons, kTile); }

// Whether the forward kernel packs weights event by event: of a step of one sample few are needed. Each is then a line
// of memory of its own, which pays for itself up to an eighth of all inputs.
inline bool packs_by_event(int64_t inputs, int64_t events) { return events < inputs / 8; }

// Rows of weights that it packs for a tile.
inline int64_t packed_rows(int64_t inputs, int64_t events) { return packs_by_event(inputs, events) ? events : inputs; }

inline int64_t event_tile_width(int64_t neurons) {
    const int64_t tiles = event_tiles(neurons), even = tiles ? ceil_div(neurons, tiles) : 0;
    return ceil_div(even, 16) * 16;
}

// Samples whose weight gradients are summed one after the other; the sums of groups are added in a fixed tree. Few, so
// that scratch is small: 16 (group, tile) pairs at most.
SRCELL_HOST_DEVICE inline int64_t event_group_size(int64_t batch, int64_t neurons) {
    const int64_t tiles = event_tiles(neurons), groups = tiles < 16 ? 16 / (tiles ? tiles : 1) : 1;
    return ceil_div(batch, groups);
}

SRCELL_HOST_DEVICE inline int64_t event_groups(int64_t batch, int64_t neurons) {
    const int64_t size = event_group_size(batch, neurons);
    return size ? ceil_div(batch, size) : 0;
}

template <class T>
struct EventsForward : CellForward<T> {
    Events<T> events;
    const T* weight;   // (N, K)
    T* packed_weight;  // scratch: (event_tiles(N), packed_rows(K, events), event_tile_width(N))
    // What the backward pass needs, null: inference. For every step the drive tanh(i / rho), or i itself where
    // gradients of cell parameters are wanted; and before every kEventSegment-th step h and hs. Both are zero past a
    // sample's length.
    T* trace;        // B * T * N out: of each sample a tile after the other, of each tile its steps
    T* checkpoints;  // (segments(T, kEventSegment), 2, B, N) out
    bool trace_integrator;
};

template <class T>
struct EventsBackward : CellBackward<T> {
    Events<T> events;
    const T *trace, *checkpoints;  // what the forward pass wrote
    const T* i0;                   // (B, N), or null: zero
    T* grad_current;               // (T, B, N) out, zero past a sample's length; or null: not wanted
    T* grad_weight;                // (N, K) out, or null: not wanted
    T* weight_partials;            // scratch: (event_tiles(N), event_groups(B, N), K, event_tile_width(N))
};

// Gradients of event values: for each event the sum over neurons of weight times gradient of the current.
template <class T>
struct EventDots {
    ScanShape shape;
    Events<T> events;
    const T* weight_t;      // (K, N)
    const T* grad_current;  // (T, B, N)
    T* grad_values;         // (count,) out, or null:
    T* grad_input;          // (T, B, K) out, each event's at its element and zero elsewhere
};

// The gradient of a dense input: product = gradients times weight.
template <class T>
struct Product {
    int64_t rows, inputs, neurons;
    int threads;
    const T* gradients;  // (rows, N)
    const T* weight;     // (N, K)
    T* packed_weight;    // scratch: N * (K + kProductPadding)
    T* product;          // (rows, K) out
};

constexpr int64_t kProductPadding = 64;  // at least what the widest panel can exceed K by

// A dense input and its events. A row of elements takes mask_words(K) words of mask: bit k tells whether element k is
// not 0; NaN is not. What lies past a sample's length is no event.
SRCELL_HOST_DEVICE inline int64_t mask_words(int64_t inputs) { return ceil_div(inputs, 64); }

template <class T>
struct DenseInput {
    ScanShape shape;  // the neurons mean nothing
    int64_t inputs;
    const T* elements;  // (T, B, K)
    uint64_t* mask;     // (B * T, mask_words(K)), row b * T + t
    int64_t* offsets;   // (B * T + 1,)
};

// What neurons did: for each the elements in which it is active (s > 0), then its upward crossings of 0.5, the first
// step counting as one if it is above. Samples are counted in groups.
inline int64_t count_groups(int64_t batch) { return batch < 16 ? batch : 16; }

template <class T>
struct SpikeCounts {
    int64_t steps, batch, neurons;
    int threads;
    const T* spikes;    // (T, B, N)
    int64_t* partials;  // scratch: (count_groups(B), 2, N)
    int64_t* counts;    // (2, N) out
};

}  // namespace srcell
