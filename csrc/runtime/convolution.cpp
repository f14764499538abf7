// Reads a convolution from a file, and adds up the currents of events (convolution.h).
#include "convolution.h"

#include <algorithm>
#include <atomic>
#include <iterator>

#include "../cpu/parallel.h"
#include "tensors.h"

namespace srcell {

namespace {

// The numbers of the file's tensor.
constexpr const char* kSizeNames[] = {"channels",         "height",     "width",     "height of the map",
                                      "width of the map", "stride_y",   "stride_x",  "padding_top",
                                      "padding_left",     "dilation_y", "dilation_x"};
constexpr int64_t kSizes = std::size(kSizeNames), kMostSize = int64_t(1) << 20;
constexpr int64_t kFirstPadding = 7, kLastPadding = 8;  // the only ones that may be 0

// Whether a map is larger than kMostInMaps. Each factor but the first is at most kMostSize.
bool too_many(int64_t channels, int64_t rows, int64_t columns) {
    return channels > kMostInMaps || channels * rows > kMostInMaps || channels * rows * columns > kMostInMaps;
}

// parallel_for() of a lambda.
template <class Work>
void for_rows(int64_t rows, int threads, Work work) {
    const auto run = [](void* self, int64_t begin, int64_t end) { (*static_cast<Work*>(self))(begin, end); };
    parallel_for(rows, threads, run, &work);
}

}  // namespace

Convolution::Taps::Taps(int64_t size, int64_t kernel, int64_t out, int64_t stride, int64_t padding, int64_t dilation)
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

Convolution Convolution::of(const TensorFile& file, const std::string& prefix) {
    Convolution made;
    const std::string of_sizes = prefix + "convolution", of_weight = prefix + "weight";
    made.sizes_ = numbers_of<int32_t>(file, of_sizes, {kSizes});
    for (int64_t k = 0; k < kSizes; ++k) {
        const int64_t size = made.sizes_[static_cast<size_t>(k)], least = k < kFirstPadding || k > kLastPadding;
        if (size < least || size > kMostSize)
            throw FileError(of_sizes + ": expected " + kSizeNames[k] + " in [" + std::to_string(least) + ", " +
                            std::to_string(kMostSize) + "], got " + std::to_string(size));
    }
    const auto& [channels, height, width, out_height, out_width, stride_y, stride_x, top, left, dilation_y,
                 dilation_x] = *reinterpret_cast<const int32_t (*)[kSizes]>(made.sizes_.data());
    made.channels_ = channels, made.height_ = height, made.width_ = width;
    made.out_height_ = out_height, made.out_width_ = out_width;

    const auto weight = numbers_of<float>(file, of_weight, {-1, -1, -1, -1});
    const std::vector<int64_t>& shape = file.tensors.at(of_weight).shape;
    const int64_t in_group = shape[1], groups = in_group ? made.channels_ / in_group : 0;
    made.out_channels_ = shape[0], made.kernel_height_ = shape[2], made.kernel_width_ = shape[3];
    if (weight.empty() || groups * in_group != made.channels_ || made.out_channels_ % groups)
        throw FileError(of_weight + ": expected (O, C / groups, height, width) for C = " +
                        std::to_string(made.channels_) + " and O a multiple of groups, got " + shape_text(shape));
    if (too_many(made.channels_, made.height_, made.width_) ||
        too_many(made.out_channels_, made.out_height_, made.out_width_))
        throw FileError(of_sizes + ": expected at most " + std::to_string(kMostInMaps) +
                        " inputs, and as many neurons");
    if (made.kernel_height_ > kMostTaps / made.height_ || made.kernel_width_ > kMostTaps / made.width_)
        throw FileError(of_weight + ": expected a kernel of at most 2^22 / size of the input rows and columns, got " +
                        shape_text(shape));
    made.rows_ = {made.height_, made.kernel_height_, made.out_height_, stride_y, top, dilation_y};
    made.columns_ = {made.width_, made.kernel_width_, made.out_width_, stride_x, left, dilation_x};

    made.out_group_ = made.out_channels_ / groups, made.in_group_ = in_group;
    made.weight_ = Aligned<float>(static_cast<int64_t>(weight.size()));
    const int64_t taps = made.kernel_height_ * made.kernel_width_;
    for (int64_t o = 0; o < made.out_channels_; ++o)
        for (int64_t c = 0; c < in_group; ++c)
            for (int64_t tap = 0; tap < taps; ++tap)
                made.weight_.data()[((o / made.out_group_ * in_group + c) * taps + tap) * made.out_group_ +
                                    o % made.out_group_] = weight[static_cast<size_t>((o * in_group + c) * taps + tap)];
    return made;
}

template <class Visit>
void Convolution::for_each_tap(int64_t input, Visit visit) const {
    const int64_t column = input % width_, row = input / width_ % height_, channel = input / width_ / height_;
    const float* const weight = weight_.data() + channel * kernel_height_ * kernel_width_ * out_group_;
    const int64_t first = channel / in_group_ * out_group_;
    for (const Tap& y : rows_.at(row))
        for (const Tap& x : columns_.at(column))
            visit((y.out * out_width_ + x.out) * out_channels_ + first,
                  weight + (y.kernel * kernel_width_ + x.kernel) * out_group_);
}

bool Convolution::currents(const ScanShape& shape, const Events<float>& events, float* scratch, float* to) const {
    std::atomic<bool> good{true};
    const int64_t size = neurons(), places = positions();
    for_rows(shape.batch * shape.steps, shape.threads, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t at = (row % shape.steps * shape.batch + row / shape.steps) * size;
            // By place and channel, so that an event adds to neighbours.
            float* const sums = scratch + at;
            std::fill_n(sums, size, 0.0f);
            const int64_t from = read_once(events.offsets + row), end_of_row = read_once(events.offsets + row + 1);
            bool valid = from >= 0 && from <= end_of_row && end_of_row <= events.count;
            for (int64_t n = from; valid && n < end_of_row; ++n) {
                const int64_t input = input_or_more(events.indices + n);
                valid = input < events.inputs;
                if (!valid) break;
                const float value = events.values ? events.values[n] : 1;
                for_each_tap(input, [&](int64_t first, const float* weight) {
                    for (int64_t o = 0; o < out_group_; ++o) sums[first + o] += value * weight[o];
                });
            }
            if (!valid) good = false;
            for (int64_t o = 0; o < out_channels_; ++o)
                for (int64_t place = 0; place < places; ++place)
                    to[at + o * places + place] = sums[place * out_channels_ + o];
        }
    });
    return good;
}

int64_t Convolution::operations(const Events<float>& events) const {
    int64_t sum = 0;
    for (int64_t n = 0; n < events.count; ++n) {
        const int64_t input = input_or_first(events.indices + n, events.inputs);
        sum += rows_.at(input / width_ % height_).size() * columns_.at(input % width_).size();
    }
    return sum * out_group_;
}

}  // namespace srcell
