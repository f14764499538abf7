// The backward pass of neurons after a synapse on events, or of neurons with recurrent weights, with the scratch that
// its kernel needs. Included by the bindings, for torch, and by the runtime, which learns by itself.
#pragma once

#include <vector>

#include "block.h"
#include "kernels.h"

namespace srcell {

// Scratch in a block for each piece.
class Blocks {
  public:
    Blocks() { blocks_.reserve(8); }
    template <class T>
    T* take(int64_t count) {
        if (count > PTRDIFF_MAX / static_cast<int64_t>(sizeof(T))) throw std::bad_alloc();
        blocks_.emplace_back(count * static_cast<int64_t>(sizeof(T)));
        return reinterpret_cast<T*>(blocks_.back().data());
    }

  private:
    std::vector<Block<char>> blocks_;
};

// `p` lacks scratch; without recurrent weights its `lateral.weight` is null. `memory.take<T>(count)` returns memory
// that outlives the call. Returns what the kernel returns.
template <class T, class Memory>
int64_t run_backward(const Kernels& kernels, LateralBackward<T> p, Memory&& memory) {
    const int64_t batch = p.shape.batch, neurons = p.shape.neurons, terms = neurons * p.delays.of.terms;
    const int64_t row = event_tiles(neurons) * event_groups(batch, neurons) * event_tile_width(neurons);
    const int parameters = p.wants_parameters() ? parameters_of(static_cast<bool>(p.turn)) : 1;
    p.partials = memory.template take<T>(parameters * batch * neurons);
    if (p.synapse && p.synapse->grad_weight)
        p.synapse->weight_partials = memory.template take<T>(p.synapse->events.inputs * row);
    if (!p.lateral.weight) return kernels.of<T>().events_backward({p, p.synapse.value_or(SynapseGradient<T>{})});
    if (p.grad_lateral) p.lateral_partials = memory.template take<T>(neurons * row);
    p.lateral.packed = memory.template take<T>(neurons * lateral_width(neurons));
    p.delays.later = memory.template take<int32_t>(terms);
    if (p.delays.grad_factors) p.delays.factor_partials = memory.template take<T>(batch * terms);
    return kernels.of<T>().lateral_backward(p);
}

}  // namespace srcell
