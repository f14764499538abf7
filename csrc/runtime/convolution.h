// A convolution of events in the runtime: adds the weights of each event to the currents of a map of neurons. The
// network reads it from a file and runs it; it knows no equations.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../params.h"
#include "aligned_array.h"
#include "tensor_file.h"

namespace srcell {

class Convolution {
  public:
    // Reads the tensors `prefix`convolution and `prefix`weight. Throws FileError.
    static Convolution of(const TensorFile& file, const std::string& prefix);

    int64_t inputs() const { return channels_ * height_ * width_; }
    int64_t out_channels() const { return out_channels_; }
    int64_t positions() const { return out_height_ * out_width_; }
    int64_t neurons() const { return out_channels_ * positions(); }
    int64_t out_height() const { return out_height_; }
    int64_t out_width() const { return out_width_; }
    int64_t weights() const { return weight_.size(); }
    // The most entries that the tables of taps may have.
    int64_t taps() const { return height_ * kernel_height_ + width_ * kernel_width_; }
    const Aligned<float>& weight() const { return weight_; }
    // The numbers of the file's tensor, in its order.
    const std::vector<int32_t>& sizes() const { return sizes_; }

    // Writes the currents (T, B, N) of events; `scratch` has as many elements. A current is the sum of its events in
    // the order of their row, each product rounded before it is added. Returns whether the events were valid.
    bool currents(const ScanShape& shape, const Events<float>& events, float* scratch, float* to) const;
    // The weights through which valid events pass, summed over them.
    int64_t operations(const Events<float>& events) const;

  private:
    // An entry of a kernel through which an input's row (or column) reaches a row (or column) of the map.
    struct Tap {
        int32_t kernel, out;
    };
    // The taps of all rows, or of all columns.
    struct Taps {
        std::vector<int64_t> begin;  // those of row k are all[begin[k]] to all[begin[k + 1] - 1]
        std::vector<Tap> all;

        Taps() = default;
        Taps(int64_t size, int64_t kernel, int64_t out, int64_t stride, int64_t padding, int64_t dilation);
        struct Range {
            const Tap *first, *last;
            const Tap* begin() const { return first; }
            const Tap* end() const { return last; }
            int64_t size() const { return last - first; }
        };
        Range at(int64_t k) const {
            const int64_t* const from = begin.data() + k;
            return {all.data() + from[0], all.data() + from[1]};
        }
    };

    // Calls visit(first, weight) for each place of the map that an input reaches: its channels have the numbers
    // `first`, `first` + 1, ..., counted by place and then by channel, and the weights weight[0], weight[1], ...
    template <class Visit>
    void for_each_tap(int64_t input, Visit visit) const;

    int64_t channels_ = 0, height_ = 0, width_ = 0, out_channels_ = 0, out_height_ = 0, out_width_ = 0;
    int64_t kernel_height_ = 0, kernel_width_ = 0;
    int64_t in_group_ = 0, out_group_ = 0;  // channels of the input, and of the map, in each group
    Taps rows_, columns_;
    Aligned<float> weight_;  // (C, kernel height, kernel width, out_group)
    std::vector<int32_t> sizes_;
};

// Bounds on the convolutions of a network, all together: neurons, which a file of any size can ask for (4 million take
// 0.25 GB, and as much again for a stream), and entries of the tables of taps.
constexpr int64_t kMostInMaps = int64_t(1) << 22, kMostTaps = int64_t(1) << 22;

}  // namespace srcell
