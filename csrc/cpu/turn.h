// The turn of a layer's resonant neurons in memory of its own, made once per call or once per network.
#pragma once

#include <vector>

#include "float_control.h"
#include "kernels.h"

namespace srcell {

template <class T>
class OwnTurn {
  public:
    OwnTurn() = default;  // of a layer that does not resonate

    // One turn for the whole layer, or one for each of its neurons.
    OwnTurn(const Kernels& kernels, const CellParameters<T>& cell, int64_t neurons) {
        const PlainArithmetic plain;  // denormal parameters stay what they are
        const int64_t count = count_turns(cell, neurons);
        along_.resize(static_cast<size_t>(count));
        across_.resize(static_cast<size_t>(count));
        kernels.of<T>().make_turn(cell, count, along_.data(), across_.data());
    }

    bool empty() const { return along_.empty(); }

    Turn<T> view() const {
        if (empty()) return {};
        return {along_.data(), across_.data(), along_.size() == 1 ? 0 : 1};
    }

  private:
    std::vector<T> along_, across_;
};

}  // namespace srcell
