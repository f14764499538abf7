// Fuzz target: any bytes as the file of a network. It is refused in one line, or runs: whole and step by step with the
// same bits.
#include "../../csrc/runtime/network.h"
#include "input.h"

using namespace srcell;

namespace {

// By bits, but that all NaNs are equal: weights may be NaN.
bool same(const float* x, const float* y, size_t count) {
    for (size_t k = 0; k < count; ++k)
        if (std::memcmp(x + k, y + k, sizeof(float)) != 0 && (x[k] == x[k] || y[k] == y[k])) return false;
    return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        const Array<unsigned char> exact(std::vector<unsigned char>(data, data + size));
        const Network network(TensorFile::parse(exact.data(), size));
        if (network.inputs() > 1000) return 0;
        for (const NetworkLayer& layer : network.layers())
            if (layer.neurons > 1000) return 0;
        constexpr int64_t kSteps = 40;
        std::vector<int64_t> offsets = {0};
        std::vector<int32_t> indices;
        for (int64_t t = 0; t < kSteps; ++t) {
            for (int64_t k = t % 3; k < network.inputs(); k += 3) indices.push_back(static_cast<int32_t>(k));
            offsets.push_back(static_cast<int64_t>(indices.size()));
        }
        const auto outputs = static_cast<size_t>(network.outputs()),
                   classes = static_cast<size_t>(network.readout().classes);
        std::vector<float> spikes(static_cast<size_t>(kSteps) * outputs), logits(classes), stepped(classes);
        std::vector<float*> written(network.layers().size());
        written.back() = spikes.data();
        network.run({kSteps, 1, {offsets.data(), indices.data(), nullptr, offsets.back(), network.inputs()}, nullptr},
                    {logits.data(), written.data(), nullptr}, 1);
        Stream stream(network, 1);
        for (int64_t t = 0; t < kSteps; ++t) {
            const int64_t row[] = {0, offsets[static_cast<size_t>(t) + 1] - offsets[static_cast<size_t>(t)]};
            stream.step(row, indices.data() + offsets[static_cast<size_t>(t)], nullptr, row[1]);
            const float* whole = spikes.data() + static_cast<size_t>(t) * outputs;
            CHECK(same(stream.spikes(network.layers().size() - 1), whole, outputs));
        }
        stream.logits(stepped.data());
        CHECK(same(stepped.data(), logits.data(), classes));
    } catch (const FileError& error) {
        CHECK(error.what()[0] && !std::strchr(error.what(), '\n'));
    } catch (const std::bad_alloc&) {
    }
    return 0;
}
