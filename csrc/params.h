// The plain structs that cross every boundary: pointers, sizes and options, nothing that allocates or owns.
// The bindings fill them, the dispatch table hands them on, the kernels read them. They know neither Python nor an ISA.
//
// Shapes use T steps, B samples, N neurons. Every array is dense and row-major, needs no padding and no alignment
// beyond that of its element, and stays the caller's: it must outlive the call. No output may overlap an input or
// another output.
#pragma once

#include <cstdint>

namespace srcell {

// States are kept for the backward pass every kSegment steps; between them the backward pass recomputes.
constexpr int64_t kSegment = 16;

inline int64_t segments(int64_t steps) { return (steps + kSegment - 1) / kSegment; }

// One value for the layer (stride 0) or one value per neuron (stride 1).
template <class T>
struct Parameter {
    const T* data;
    int64_t stride;
};

template <class T>
struct CellParameters {
    Parameter<T> bias, alpha, rho, r, rs, zs_hyp, zs_dep;
};

struct ScanShape {
    int64_t steps, batch, neurons;
    const int64_t* lengths;  // (B,) each in [0, T], or null: every sample has T steps
    int threads;             // at most this many; results do not depend on it
};

template <class T>
struct ScanForward {
    ScanShape shape;
    CellParameters<T> cell;
    const T* current;        // (T, B, N)
    const T *i0, *h0, *hs0;  // (B, N) each, or null: zero
    T* spikes;               // (T, B, N) out; zero past a sample's length
    T *i, *h, *hs;           // (B, N) out: the state after a sample's last step
    T* checkpoints;          // (segments(T), 3, B, N) out: i, h, hs before every kSegment-th step,
                             // zero past a sample's length; null: inference
};

template <class T>
struct ScanBackward {
    ScanShape shape;
    CellParameters<T> cell;
    bool relu;                           // ds/dh = [h > 0]; otherwise 1
    bool recurrent;                      // follow h[t-1] and hs[t-1]; otherwise only the integrator carries a gradient
    const T* current;                    // (T, B, N) as in the forward pass
    const T* checkpoints;                // what the forward pass wrote
    const T* grad_spikes;                // (T, B, N), or null: zero
    const T *grad_i, *grad_h, *grad_hs;  // (B, N) each, gradients of the final state, or null: zero
    T* grad_current;                     // (T, B, N) out; zero past a sample's length
    T *grad_i0, *grad_h0, *grad_hs0;     // (B, N) out
    // Gradients of the parameters, (1,) or (N,) out as the parameter's stride says: bias, and in the order of
    // CellParameters those of grad_cell that are wanted, the others null.
    T* grad_bias;
    T* grad_cell[6];
    // Scratch for the sums over the steps of each neuron of each sample, which are then added in a fixed tree:
    // (kSums, B, N), or (1, B, N) where no grad_cell is wanted. Its contents mean nothing afterwards.
    T* partials;
};

// Bias and the six cell parameters.
constexpr int64_t kSums = 7;

}  // namespace srcell
