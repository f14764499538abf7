// Reads a convolution from a file (convolution.h).
#include "convolution.h"

#include <algorithm>

#include "file_entries.h"

namespace srcell {

StoredConvolution StoredConvolution::read(const TensorFile& file, const std::string& prefix) {
    constexpr int64_t kMostSize = int64_t(1) << 20;
    const std::string of_sizes = prefix + "convolution", of_weight = prefix + "weight";
    const auto numbers = numbers_of<int32_t>(file, of_sizes, {std::tuple_size_v<ConvolutionSizes>});
    ConvolutionSizes sizes;
    std::copy(numbers.begin(), numbers.end(), sizes.begin());
    const auto weight = numbers_of<float>(file, of_weight, {-1, -1, -1, -1});
    const std::vector<int64_t>& shape = file.tensors.at(of_weight).shape;
    const auto [channels, height, width, out_height, out_width] =
        std::array{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]};
    const auto valid = [](int64_t size) { return size >= 1 && size <= kMostSize; };
    // Checked before tables of these sizes are made.
    if (std::all_of(sizes.begin(), sizes.begin() + 5, valid)) {
        if (OwnConvolution::is_larger(kMostInMaps, channels, height, width) ||
            OwnConvolution::is_larger(kMostInMaps, shape[0], out_height, out_width))
            throw FileError(of_sizes + ": expected at most " + std::to_string(kMostInMaps) +
                            " inputs, and as many neurons");
        if (shape[2] > kMostTaps / height || shape[3] > kMostTaps / width)
            throw FileError(of_weight +
                            ": expected a kernel of at most 2^22 / size of the input rows and columns, got " +
                            shape_text(shape));
    }
    try {
        StoredConvolution made = {{sizes, {shape[0], shape[1], shape[2], shape[3]}, kMostSize}, {}};
        const Convolution& map = made.of.view();
        made.packed_weight = Aligned<float>(map.packed_weights());
        pack_convolution(map, weight.data(), made.packed_weight.data());
        return made;
    } catch (const ConvolutionFault& fault) {
        throw FileError((fault.of_weight ? of_weight : of_sizes) + ": " + fault.what());
    }
}

}  // namespace srcell
