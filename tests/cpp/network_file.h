// Networks as bytes of a file, made without Python; for the tests of the runtime.
#pragma once

#include <string>
#include <vector>

#include "../../csrc/params.h"
#include "support.h"

namespace srcell {

// Writes tensors and texts as safetensors does.
class FileWriter {
  public:
    void text(const std::string& name, const std::string& value) {
        texts_ += (texts_.empty() ? "\"" : ",\"") + name + "\":\"" + value + "\"";
    }

    template <class T>
    void tensor(const std::string& name, const std::vector<int64_t>& shape, const std::vector<T>& values) {
        std::string sizes;
        for (const int64_t n : shape) sizes += (sizes.empty() ? "" : ",") + std::to_string(n);
        const size_t begin = data_.size();
        const auto* bytes = reinterpret_cast<const char*>(values.data());
        data_.append(bytes, values.size() * sizeof(T));
        tensors_ += ",\"" + name + "\":{\"dtype\":\"" + (sizeof(T) == 4 ? "F32" : "F64") + "\",\"shape\":[" + sizes +
                    "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(data_.size()) + "]}";
    }

    std::string bytes() const {
        const std::string header = "{\"__metadata__\":{" + texts_ + "}" + tensors_ + "}";
        std::string made;
        for (int k = 0; k < 8; ++k) made += static_cast<char>(header.size() >> 8 * k & 0xFF);
        return made + header + data_;
    }

  private:
    std::string texts_, tensors_, data_;
};

// A network with weights that are integers over powers of two, so that the spikes are the same wherever it is made.
inline std::string network_file(const std::vector<int64_t>& sizes, bool lateral, const std::string& readout,
                                uint64_t seed = 1) {
    Numbers numbers(seed);
    const auto grid = [&](int64_t count, int64_t range) {
        std::vector<float> made(static_cast<size_t>(count));
        for (float& x : made) x = static_cast<float>(numbers.below(2 * range) - range) / 64;
        return made;
    };
    FileWriter file;
    file.text("format", "srcell.network");
    file.text("version", "1");
    file.text("readout", readout);
    file.text("note", "\\\"\\u00e9\\n");
    for (size_t k = 0; k + 1 < sizes.size(); ++k) {
        const std::string prefix = "layers." + std::to_string(k) + ".";
        const int64_t inputs = sizes[k], neurons = sizes[k + 1];
        file.tensor(prefix + "weight", {neurons, inputs}, grid(neurons * inputs, 128));
        std::vector<float> bias = grid(neurons, 16);
        for (float& x : bias) x -= 6;
        file.tensor(prefix + "bias", {neurons}, bias);
        const float constants[] = {0.875f, 3, 2, -7, 0.875f, 0};
        for (int p = kAlpha; p < kParameters; ++p)
            file.tensor(prefix + kParameterNames[p], {1}, std::vector<float>{constants[p - kAlpha]});
        if (lateral) file.tensor(prefix + "lateral", {neurons, neurons}, grid(neurons * neurons, 8));
        if (k) file.tensor(prefix + "initial", {3, neurons}, grid(3 * neurons, 32));
    }
    const int64_t neurons = sizes.back();
    if (readout == "votes")
        file.tensor("readout.constants", {4}, std::vector<double>{static_cast<double>(neurons / 2), 0.99, -0.1, 3});
    if (readout == "linear") {
        file.tensor("readout.constants", {2}, std::vector<double>{0.97, 7});
        file.tensor("readout.weight", {3, neurons}, grid(3 * neurons, 64));
        file.tensor("readout.bias", {3}, grid(3, 64));
    }
    return file.bytes();
}

}  // namespace srcell
