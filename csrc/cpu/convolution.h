// A convolution's sizes as operators and files have them, checked, with its tables of taps in memory of their own; and
// its weight in the orders that the kernels take. Included by the bindings and the runtime.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "../params.h"

namespace srcell {

// The numbers of a convolution over maps of one size, in this order.
constexpr const char* kConvolutionSizes[] = {"channels",         "height",     "width",     "height of the map",
                                             "width of the map", "stride_y",   "stride_x",  "padding_top",
                                             "padding_left",     "dilation_y", "dilation_x"};
constexpr size_t kFirstPadding = 7, kLastPadding = 8;  // the only ones that may be 0
using ConvolutionSizes = std::array<int64_t, std::size(kConvolutionSizes)>;
using WeightShape = std::array<int64_t, 4>;  // (O, C / groups, kernel height, kernel width)

// What is wrong with the shape of a weight, or with another size.
struct ConvolutionFault : std::invalid_argument {
    ConvolutionFault(bool weight, const std::string& text) : std::invalid_argument(text), of_weight(weight) {}

    bool of_weight;
};

class OwnConvolution {
  public:
    // Throws ConvolutionFault. No size may exceed `most`.
    OwnConvolution(const ConvolutionSizes& sizes, const WeightShape& weight, int64_t most) {
        for (size_t k = 0; k < sizes.size(); ++k) {
            const int64_t least = k < kFirstPadding || k > kLastPadding;
            if (sizes[k] < least || sizes[k] > most)
                throw ConvolutionFault(false, std::string("expected ") + kConvolutionSizes[k] + " in [" +
                                                  std::to_string(least) + ", " + std::to_string(most) + "], got " +
                                                  std::to_string(sizes[k]));
        }
        const auto [channels, height, width, out_height, out_width, stride_y, stride_x, top, left, dilation_y,
                    dilation_x] = sizes;
        const auto [out_channels, group_inputs, kernel_height, kernel_width] = weight;
        const int64_t groups = group_inputs > 0 ? channels / group_inputs : 0;
        if (!groups || groups * group_inputs != channels || out_channels < 1 || out_channels % groups ||
            kernel_height < 1 || kernel_width < 1)
            throw ConvolutionFault(true, "expected (O, C / groups, height, width) for C = " + std::to_string(channels) +
                                             " and O a multiple of groups, got (" + std::to_string(out_channels) +
                                             ", " + std::to_string(group_inputs) + ", " +
                                             std::to_string(kernel_height) + ", " + std::to_string(kernel_width) + ")");
        map_ = {channels, height,     width,      out_channels,  out_height,   out_width, stride_y, stride_x, top,
                left,     dilation_y, dilation_x, kernel_height, kernel_width, groups,    {},       {}};
        if (is_larger(kMostInputs, channels, height, width))
            throw ConvolutionFault(false, "expected at most 2^31 inputs");
        if (is_larger(kMostNeurons, out_channels, out_height, out_width))
            throw ConvolutionFault(false, "expected at most 2^40 neurons");
        rows_ = Taps(height, kernel_height, out_height, stride_y, top, dilation_y);
        columns_ = Taps(width, kernel_width, out_width, stride_x, left, dilation_x);
        map_.rows = rows_.table(), map_.columns = columns_.table();
    }
    OwnConvolution(OwnConvolution&&) = default;  // the tables stay where they are
    OwnConvolution& operator=(OwnConvolution&&) = default;

    const Convolution& view() const { return map_; }

    // Whether a map of these sizes, each at least 1 and all but the first below 2^32, has more than `most` elements,
    // at most 2^40 of them.
    static bool is_larger(int64_t most, int64_t channels, int64_t rows, int64_t columns) {
        return channels > most / rows / columns;
    }

    // The weights through which events pass, summed over valid events.
    int64_t operations(const int32_t* indices, int64_t count) const {
        int64_t sum = 0;
        for (int64_t n = 0; n < count; ++n) {
            const int64_t input = input_or_first(indices + n, map_.inputs());
            const int64_t row = input / map_.width % map_.height, column = input % map_.width;
            sum +=
                (map_.rows.last(row) - map_.rows.first(row)) * (map_.columns.last(column) - map_.columns.first(column));
        }
        return sum * map_.group_outputs();
    }

  private:
    static constexpr int64_t kMostInputs = int64_t(1) << 31;  // an event's index is an int32
    static constexpr int64_t kMostNeurons = int64_t(1) << 40;

    struct Taps {
        std::vector<int64_t> begin;
        std::vector<Tap> all;

        Taps() = default;
        Taps(int64_t size, int64_t kernel, int64_t out, int64_t stride, int64_t padding, int64_t dilation)
            : begin(static_cast<size_t>(size + 1)) {
            for (int64_t at = 0; at < size; ++at) {
                for (int64_t k = 0; k < kernel && k * dilation <= at + padding; ++k) {
                    const int64_t moved = at + padding - k * dilation;
                    if (moved % stride == 0 && moved / stride < out)
                        all.push_back({static_cast<int32_t>(k), static_cast<int32_t>(moved / stride)});
                }
                begin[static_cast<size_t>(at + 1)] = static_cast<int64_t>(all.size());
            }
        }
        TapTable table() const { return {begin.data(), all.data()}; }
    };

    Convolution map_ = {};
    Taps rows_, columns_;
};

// to[n * stride + k] = from[k * columns + n] for k < rows, n < columns; in blocks, whose lines stay in the cache.
template <class T>
void transpose_matrix(const T* from, int64_t rows, int64_t columns, T* to, int64_t stride) {
    constexpr int64_t block = 16;
    for (int64_t n = 0; n < columns; n += block)
        for (int64_t k = 0; k < rows; k += block)
            for (int64_t j = n; j < n + block && j < columns; ++j)
                for (int64_t i = k; i < k + block && i < rows; ++i) to[j * stride + i] = from[i * columns + j];
}

// The order of ConvolutionForward::packed_weight: of each group the transpose of (outputs, inputs x taps).
template <class T>
void pack_convolution(const Convolution& map, const T* weight, T* packed) {
    const int64_t outputs = map.group_outputs(), columns = map.group_inputs() * map.taps(), width = map.packed_width();
    if (width > outputs) std::memset(packed, 0, static_cast<size_t>(map.packed_weights()) * sizeof(T));
    for (int64_t group = 0; group < map.groups; ++group)
        transpose_matrix(weight + group * outputs * columns, outputs, columns, packed + group * columns * width, width);
}

// The order of ConvolutionBackward::weight: of each output channel the transpose of (inputs, taps).
template <class T>
void order_by_tap(const Convolution& map, const T* weight, T* by_tap) {
    const int64_t inputs = map.group_inputs(), size = inputs * map.taps();
    for (int64_t o = 0; o < map.out_channels; ++o)
        transpose_matrix(weight + o * size, inputs, map.taps(), by_tap + o * size, inputs);
}

}  // namespace srcell
