// The nonzero elements of a dense input as events, listed for the duration of a call. Included by the bindings whose
// kernels take events.
#pragma once

#include <optional>

#include "arguments.h"

namespace srcell {

template <class T>
class ListedEvents {
  public:
    // Of an input (T, B, K). Its mask (params.h) is written where `mask` says, if that is not 0; of a mask that was
    // written before, `ones` is what it was found to be: whether all elements in it are 1.
    ListedEvents(const ScanShape& shape, int64_t inputs, Address input, Address mask, std::optional<bool> ones)
        : inputs_(inputs),
          own_mask_(mask ? 0 : shape.batch * shape.steps * mask_words(inputs)),
          offsets_(shape.batch * shape.steps + 1) {
        const int64_t rows = shape.batch * shape.steps;
        DenseInput<T> dense = {shape, inputs, pointer<const T>(input), mask ? pointer<uint64_t>(mask) : own_mask_.get(),
                               offsets_.get()};
        offsets_.get()[0] = 0;
        const KernelsOf<T>& of = kernels().of<T>();
        const ReleasedGil release;
        if (ones) {
            dense.shape.lengths = nullptr;  // the mask has no more than these allowed
            kernels().f32.count_events({dense.shape, inputs, nullptr, dense.mask, dense.offsets});
        } else if (rows) {  // without rows T or B may be huge, and the kernels loop over both
            ones = of.mask_events(dense);
        }
        ones_ = ones.value_or(true);
        count_ = offsets_.get()[rows];
        indices_.emplace(count_);
        values_.emplace(ones_ ? 0 : count_);
        if (count_) of.list_events(dense, indices_->get(), values_->get());
    }

    bool ones() const { return ones_; }
    EventRows rows() const {
        return {address_of(offsets_.get()), address_of(indices_->get()), address_of(values_->get()), count_, inputs_};
    }

  private:
    int64_t inputs_, count_;
    bool ones_;
    const Scratch<uint64_t> own_mask_;
    const Scratch<int64_t> offsets_;
    std::optional<Scratch<int32_t>> indices_;
    std::optional<Scratch<T>> values_;
};

}  // namespace srcell
