// Lists the nonzero elements of a dense array as events and owns their arrays. Included by the bindings and the
// runtime; knows nothing about layers.
#pragma once

#include <optional>

#include "block.h"
#include "kernels.h"

namespace srcell {

template <class T>
class ListedEvents {
  public:
    // Lists the events of elements (T, B, K). Their mask (params.h) is written to `mask`, if that is given. If an
    // earlier call wrote the mask, `ones` says whether all elements in the mask are 1.
    ListedEvents(const Kernels& kernels, const Samples& shape, int64_t inputs, const T* elements,
                 Maybe<uint64_t> mask = nullptr, std::optional<bool> ones = std::nullopt)
        : own_mask_(mask ? 0 : shape.batch * shape.steps * mask_words(inputs)),
          offsets_(shape.batch * shape.steps + 1) {
        const int64_t rows = shape.batch * shape.steps;
        DenseInput<T> dense = {shape, inputs, elements, mask ? mask : own_mask_.data(), offsets_.data()};
        offsets_.data()[0] = 0;
        if (ones) {
            dense.shape.lengths = nullptr;  // elements past the lengths are not in the mask
            kernels.of<T>().count_events(dense);
        } else if (rows) {  // without rows T or B may be huge, and the kernels loop over both
            ones = kernels.of<T>().mask_events(dense);
        }
        const int64_t count = offsets_.data()[rows];
        indices_ = Block<int32_t>(count);
        if (!ones.value_or(true)) values_ = Block<T>(count);
        if (count) kernels.of<T>().list_events(dense, indices_.data(), values_.data());
        events_ = {offsets_.data(), indices_.data(), values_.data(), count, inputs};
    }

    // The values are null if all are 1.
    const Events<T>& events() const { return events_; }

  private:
    Block<uint64_t> own_mask_;
    Block<int64_t> offsets_;
    Block<int32_t> indices_;
    Block<T> values_;
    Events<T> events_;
};

}  // namespace srcell
