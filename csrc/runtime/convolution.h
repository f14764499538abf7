// Reads a convolution of the runtime from a file, and packs its weight. The network runs it.
#pragma once

#include <cstdint>
#include <string>

#include "../cpu/convolution.h"
#include "aligned_array.h"
#include "tensor_file.h"

namespace srcell {

struct StoredConvolution {
    OwnConvolution of;
    Aligned<float> packed_weight;

    // Reads the tensors `prefix`convolution and `prefix`weight. Throws FileError.
    static StoredConvolution read(const TensorFile& file, const std::string& prefix);

    // The most entries that the tables of taps may have.
    int64_t taps() const {
        const Convolution& map = of.view();
        return map.height * map.kernel_height + map.width * map.kernel_width;
    }
};

// Bounds on the convolutions of a network, all together: neurons, which a file of any size can ask for (4 million take
// 0.25 GB, and as much again for a stream), and entries of the tables of taps.
constexpr int64_t kMostInMaps = int64_t(1) << 22, kMostTaps = int64_t(1) << 22;

}  // namespace srcell
