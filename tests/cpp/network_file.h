// Networks as bytes of a file, made without Python, and their outputs; for the tests and the fuzz target of the
// runtime.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../csrc/domains.h"
#include "../../csrc/runtime/file_entries.h"
#include "../../csrc/runtime/learner.h"
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
        tensors_ += ",\"" + name + "\":{\"dtype\":\"" + dtype_of<T>() + "\",\"shape\":[" + sizes +
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
// With delays the inputs of every layer have three taps, interpolated over four steps; recurrent spikes have whole
// delays in even layers and interpolated ones in odd layers. With constants every layer has a constant current; with a
// map the first layer is a convolution from (2, 2, K / 4) inputs to (N / 10, 2, 5) neurons, and the others have
// constants. Where standardised, the file also has a HeldEncoding of two steps, after a prefix of three; a held map is
// a standardised one.
enum class FileWith { kNothing, kDelays, kRecurrentDelays, kConstants, kMap, kSound, kStandardised, kHeldMap };

inline std::string network_file(const std::vector<int64_t>& sizes, bool lateral, const std::string& readout,
                                uint64_t seed = 1, bool resonant = false, FileWith which = FileWith::kNothing) {
    const bool standardised = which == FileWith::kStandardised || which == FileWith::kHeldMap;
    if (which == FileWith::kHeldMap) which = FileWith::kMap;
    const bool of_inputs = which == FileWith::kDelays,
               recurrent = lateral && (of_inputs || which == FileWith::kRecurrentDelays);
    Numbers numbers(seed);
    const auto grid = [&](int64_t count, int64_t range) {
        std::vector<float> made(static_cast<size_t>(count));
        for (float& x : made) x = static_cast<float>(numbers.below(2 * range) - range) / 64;
        return made;
    };
    FileWriter file;
    const auto delays = [&](const std::string& name, int64_t sources, int64_t taps, int64_t terms) {
        std::vector<int32_t> first(static_cast<size_t>(sources * taps));
        for (int32_t& steps : first) steps = static_cast<int32_t>(numbers.below(20)) - static_cast<int32_t>(terms / 2);
        file.tensor(name + ".first", {sources, taps}, first);
        if (terms > 1) file.tensor(name + ".factors", {sources, taps, terms}, grid(sources * taps * terms, 64));
    };
    file.text("format", "srcell.network");
    const bool delayed = which == FileWith::kDelays || which == FileWith::kRecurrentDelays;
    file.text("version", standardised ? "5" : delayed ? "3" : which != FileWith::kNothing ? "4" : resonant ? "2" : "1");
    file.text("readout", readout);
    file.text("note", "\\\"\\u00e9\\n");
    if (standardised) {
        file.text("encoder", "{\\\"name\\\": \\\"HeldEncoding\\\", \\\"hold\\\": 2, \\\"prefix\\\": 3}");
        std::vector<float> deviation = grid(sizes[0], 32);
        for (float& x : deviation) x += 0.75f;
        file.tensor("input.mean", {sizes[0]}, grid(sizes[0], 64));
        file.tensor("input.deviation", {sizes[0]}, deviation);
    }
    for (size_t k = 0; k + 1 < sizes.size(); ++k) {
        const std::string prefix = "layers." + std::to_string(k) + ".";
        const int64_t inputs = of_inputs ? 3 * sizes[k] : sizes[k], neurons = sizes[k + 1];
        if (of_inputs) delays(prefix + "delays", sizes[k], 3, 4);
        const bool map = !k && which == FileWith::kMap;
        const int64_t channels = map ? neurons / 10 : neurons, in_group = channels % 2 ? 2 : 1;
        if (map) {
            file.tensor(prefix + "weight", {channels, in_group, 2, 3}, grid(channels * in_group * 6, 128));
            file.tensor(prefix + "convolution", {11},
                        std::vector<int32_t>{2, 2, static_cast<int32_t>(inputs / 4), 2, 5, 1, 1, 1, 2, 1, 1});
        } else {
            file.tensor(prefix + "weight", {neurons, inputs}, grid(neurons * inputs, 128));
            if (which == FileWith::kConstants || which == FileWith::kMap)
                file.tensor(prefix + "constant", {neurons}, grid(neurons, 64));
        }
        std::vector<float> bias = grid(channels, 16);
        for (float& x : bias) x -= 6;
        file.tensor(prefix + "bias", {channels}, bias);
        const float constants[] = {0.875f, 3, 2, -7, 0.875f, 0};
        for (int p = kAlpha; p < parameters_of(false); ++p)
            file.tensor(prefix + kParameterTable[p].name, {1}, std::vector<float>{constants[p - kAlpha]});
        if (resonant) {
            std::vector<float> omega = grid(k ? 1 : channels, 64);
            omega[0] = 0.5f;  // not all 0
            file.tensor(prefix + kParameterTable[kOmega].name, {static_cast<int64_t>(omega.size())}, omega);
        }
        if (lateral && !map) file.tensor(prefix + "lateral", {neurons, neurons}, grid(neurons * neurons, 8));
        if (recurrent) delays(prefix + "lateral_delays", neurons, 1, k % 2 ? 2 : 1);
        if (k || map) file.tensor(prefix + "initial", {3, channels}, grid(3 * channels, 32));
    }
    if (which == FileWith::kSound) {  // resonators of different frequencies, as currents or, with votes, as events
        const int64_t bands = readout == "votes" ? sizes[0] / 2 : sizes[0];
        std::vector<double> sections, zeros(static_cast<size_t>(bands)), ones(static_cast<size_t>(bands), 1.0);
        for (int64_t n = 0; n < 2 * bands; ++n)
            for (const double x : {0.25, 0.0, -0.25, 0.125 * static_cast<double>(n % 16 - 8), 0.8125})
                sections.push_back(x);
        file.tensor("sound.sections", {bands, 2, 5}, sections);
        file.tensor("sound.constants", {7},
                    std::vector<double>{20, 2, 0.125, 0.0625, 0.5, readout == "votes" ? 0.0625 : 0, 0});
        file.tensor("sound.offset", {bands}, zeros);
        file.tensor("sound.scale", {bands}, ones);
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

// A layer of integer neurons with the hardware's constants and three classes.
inline std::string integer_network_file(int64_t inputs, int64_t neurons) {
    Numbers numbers(1);
    std::vector<int16_t> weight(static_cast<size_t>(neurons * inputs));
    for (int16_t& x : weight) x = static_cast<int16_t>(numbers.below(1024) - 512);
    std::vector<int32_t> constants;
    for (const IntegerConstant& constant : kIntegerConstants) constants.push_back(constant.standard);
    FileWriter file;
    file.text("format", "srcell.network");
    file.text("version", "1");
    file.text("readout", "votes");
    file.tensor("layers.0.weight", {neurons, inputs}, weight);
    file.tensor("layers.0.constants", {static_cast<int64_t>(constants.size())}, constants);
    file.tensor("layers.0.initial", {3, neurons}, std::vector<int16_t>(static_cast<size_t>(3 * neurons)));
    file.tensor("readout.constants", {4}, std::vector<double>{3, 1, -0.1, 1});
    return file.bytes();
}

inline Network network_of(const std::string& bytes) {
    return Network(TensorFile::parse(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

template <class Call>
bool refused(Call call) {
    try {
        call();
        return false;
    } catch (const std::invalid_argument& error) {
        CHECK(error.what()[0] && !std::strchr(error.what(), '\n'));
        return true;
    }
}

// Events of B samples over T steps, each input active in about one of eight.
struct NetworkRows {
    int64_t steps, batch, inputs;
    std::vector<int64_t> offsets = {0};
    std::vector<int32_t> indices;
    std::vector<float> values;

    NetworkRows(int64_t steps, int64_t batch, int64_t inputs) : steps(steps), batch(batch), inputs(inputs) {
        Numbers numbers(7);
        for (int64_t row = 0; row < batch * steps; ++row) {
            for (int64_t k = 0; k < inputs; ++k)
                if (!numbers.below(8)) {
                    indices.push_back(static_cast<int32_t>(k));
                    values.push_back(static_cast<float>(numbers.below(16)) / 8 - 0.5f);
                }
            offsets.push_back(static_cast<int64_t>(indices.size()));
        }
    }

    NetworkInput input(bool graded) const {
        return {steps,
                batch,
                {offsets.data(), indices.data(), graded ? values.data() : nullptr, offsets.back(), inputs},
                nullptr};
    }
};

// The outputs of a run. All NaNs are equal in comparisons, because a file may hold NaN as weights.
struct Outcome {
    Result<float> logits;
    std::vector<Result<float>> spikes;
    std::vector<int64_t> events, operations;

    bool operator==(const Outcome& other) const {
        return logits == other.logits && spikes == other.spikes && events == other.events &&
               operations == other.operations;
    }
};

inline Result<float> result_of(const float* values, size_t count) {
    Result<float> result;
    for (size_t k = 0; k < count; ++k) result.add(values[k]);
    return result;
}

inline Outcome run(const Network& network, const NetworkRows& rows, bool graded, int threads) {
    Outcome made;
    std::vector<std::vector<float>> spikes;
    std::vector<float> logits(static_cast<size_t>(rows.batch * network.readout().classes));
    std::vector<float*> written;
    for (const NetworkLayer& layer : network.layers())
        spikes.emplace_back(static_cast<size_t>(rows.steps * rows.batch * layer.neurons));
    for (auto& of_layer : spikes) written.push_back(of_layer.data());
    made.events.resize(spikes.size() + 1);
    made.operations.resize(spikes.size());
    network.run(rows.input(graded), {logits.data(), written.data(), made.events.data(), made.operations.data()},
                threads);
    made.logits = result_of(logits.data(), logits.size());
    for (const auto& of_layer : spikes) made.spikes.push_back(result_of(of_layer.data(), of_layer.size()));
    return made;
}

// Checks that a stream gives `expected`, step by step.
inline void stream_gives(const Network& network, const NetworkRows& rows, bool graded, const Outcome& expected) {
    Stream stream(network, rows.batch);
    std::vector<float> logits(expected.logits.all.size());
    std::vector<char> saved(stream.state_bytes());
    for (int round = 0; round < 2; ++round, stream.reset())
        for (int64_t t = 0; t < rows.steps; ++t) {
            if (t == rows.steps / 2) {
                stream.save(saved.data());
                stream.reset();
                stream.restore(saved.data(), saved.size());
            }
            std::vector<int64_t> offsets = {0};
            std::vector<int32_t> indices;
            std::vector<float> values, dense(static_cast<size_t>(rows.batch * rows.inputs));
            for (int64_t b = 0; b < rows.batch; ++b) {
                const auto row = static_cast<size_t>(b * rows.steps + t);
                for (auto e = static_cast<size_t>(rows.offsets[row]); e < static_cast<size_t>(rows.offsets[row + 1]);
                     ++e) {
                    indices.push_back(rows.indices[e]);
                    values.push_back(graded ? rows.values[e] : 1);
                    dense[static_cast<size_t>(b * rows.inputs + rows.indices[e])] = values.back();
                }
                offsets.push_back(static_cast<int64_t>(indices.size()));
            }
            if (round)
                stream.step_dense(dense.data());
            else
                stream.step(offsets.data(), indices.data(), graded ? values.data() : nullptr, offsets.back());
            for (size_t k = 0; k < network.layers().size(); ++k) {
                const auto plane = static_cast<size_t>(rows.batch * network.layers()[k].neurons);
                const Result<float> whole =
                    result_of(expected.spikes[k].all.data() + static_cast<size_t>(t) * plane, plane);
                std::vector<float> state(3 * plane);
                stream.values(k, state.data());
                float* const h = state.data() + plane;
                for (size_t n = 0; n < plane; ++n) h[n] = h[n] <= 0 ? 0 : h[n];
                CHECK(result_of(stream.spikes(k), plane) == whole);
                CHECK(network.layers()[k].is_integer() || result_of(h, plane) == whole);
            }
            if (t + 1 < rows.steps) continue;
            stream.logits(logits.data());
            CHECK(result_of(logits.data(), logits.size()) == expected.logits);
        }
}

// The property of a saved state with other bytes: it is refused and changes nothing, or the stream goes on from it.
inline void altered_states_are_refused_or_run(const Network& network, int rounds) {
    Stream stream(network, 1);
    const std::vector<float> input(static_cast<size_t>(network.inputs()), 1.0f);
    for (int t = 0; t < 3; ++t) stream.step_dense(input.data());
    std::vector<char> saved(stream.state_bytes()), after(saved);
    stream.save(saved.data());
    Numbers numbers(saved.size());
    constexpr size_t header = 32;
    for (int round = 0; round < rounds && saved.size() > header; ++round) {
        std::vector<char> altered = saved;
        for (auto k = numbers.below(8); k >= 0; --k)
            altered[header + numbers.below(altered.size() - header)] = static_cast<char>(numbers.below(256));
        stream.restore(saved.data(), saved.size());
        try {
            stream.restore(altered.data(), altered.size());
        } catch (const std::invalid_argument& error) {
            CHECK(error.what()[0] && !std::strchr(error.what(), '\n'));
            stream.save(after.data());
            CHECK(after == saved);
            continue;
        }
        for (int t = 0; t < 3; ++t) stream.step_dense(input.data());
        std::vector<float> logits(static_cast<size_t>(network.readout().classes));
        stream.logits(logits.data());
    }
}

// Checks that a sound in chunks gives the bits of the whole.
inline void hears_in_chunks(const Network& network) {
    std::vector<float> sound(48);
    for (size_t k = 0; k < sound.size(); ++k) sound[k] = static_cast<float>(k % 7) / 4 - 0.75f;
    Stream whole(network, 1), chunks(network, 1);
    int64_t steps = 0;
    for (size_t at = 0; at < sound.size(); at += 12) steps += chunks.hear(sound.data() + at, 12);
    CHECK(whole.hear(sound.data(), 48) == steps);
    const auto count = static_cast<size_t>(network.outputs());
    const size_t last = network.layers().size() - 1;
    CHECK(result_of(whole.spikes(last), count) == result_of(chunks.spikes(last), count));
}

// Checks that a stream gives the same for an element as for its steps: in its first elements, also after it was saved
// and restored between them.
inline void feeds_its_steps(const Network& network) {
    const Holding& holding = network.holding();
    if (!holding.refusal.empty() || holding.hold + holding.prefix > 100) return;
    const auto inputs = static_cast<size_t>(network.inputs()), count = static_cast<size_t>(network.outputs());
    const size_t last = network.layers().size() - 1;
    Stream fed(network, 1), stepped(network, 1);
    std::vector<char> saved(fed.state_bytes());
    const int64_t silence[] = {0, 0};
    for (int64_t t = 0; t < holding.prefix; ++t) stepped.step(silence, nullptr, nullptr, 0);
    std::vector<float> values(inputs);
    for (int element = 0; element < 3; ++element) {
        for (size_t k = 0; k < inputs; ++k) values[k] = static_cast<float>((k + 3 * element) % 7) / 4 - 0.75f;
        if (network.layers().front().is_integer()) std::fill(values.begin(), values.end(), 1.0f);
        fed.save(saved.data());
        if (element) fed.reset();
        fed.restore(saved.data(), saved.size());
        CHECK(fed.feed(values.data()) == holding.hold + (element ? 0 : holding.prefix));
        for (int64_t t = 0; t < holding.hold; ++t) stepped.step_dense(values.data());
        CHECK(result_of(fed.spikes(last), count) == result_of(stepped.spikes(last), count));
    }
}

inline std::vector<char> state_of(const Learner& learner) {
    std::vector<char> state(learner.state_bytes());
    learner.save(state.data());
    return state;
}

// The targets of two samples: labels or values, of the last step or of every step.
struct TwoTargets {
    std::vector<int64_t> labels;
    std::vector<float> values;
    bool every_step;

    TwoTargets(const Network& network, int64_t steps, bool of_values, bool every) : every_step(every) {
        const int64_t rows = every ? 2 * steps : 2, classes = network.readout().classes;
        for (int64_t k = 0; !of_values && k < rows; ++k) labels.push_back(k % classes);
        for (int64_t k = 0; of_values && k < rows * classes; ++k)
            values.push_back(static_cast<float>(k % 5) / 4 - 0.5f);
    }

    LearningTargets view() const {
        return {labels.empty() ? nullptr : labels.data(), values.empty() ? nullptr : values.data(), every_step};
    }
};

// The property of any network as one that learns: a learner refuses it, or a step is refused and changes nothing, or it
// learns; and one that restores its state goes on with the same bits. What was learnt is a network that can be read.
inline void learns_or_refuses(const Network& network) {
    const NetworkRows rows(20, 2, network.inputs());
    const bool graded = !network.layers().front().is_integer();
    for (const bool alone : {true, false}) {
        const LearningSettings settings = {1e-2, 1, alone, 0, {}};
        if (refused([&] { const Learner learner(network, settings); })) continue;
        Learner learner(network, settings), other(network, settings);
        for (const bool of_values : {false, true})
            for (const bool every : {false, true}) {
                const TwoTargets targets(network, rows.steps, of_values, every);
                const std::vector<char> before = state_of(learner);
                double loss = 0;
                if (refused([&] { loss = learner.step(rows.input(graded), targets.view(), 1); })) {
                    CHECK(state_of(learner) == before);
                    continue;
                }
                other.restore(before.data(), before.size());
                CHECK(other.step(rows.input(graded), targets.view(), 2) == loss);
                CHECK(state_of(other) == state_of(learner));
            }
        const std::vector<unsigned char> file = learner.file();
        const Network made(TensorFile::parse(file.data(), file.size()));
        CHECK(made.file().tensors.size() == network.file().tensors.size());
    }
}

// The property of any bytes as the file of a network: the file is refused in one line, or the network runs, with the
// same bits in one call and step by step. Returns whether the file was read.
inline bool network_agrees(const unsigned char* bytes, size_t size) {
    try {
        const Array<unsigned char> exact(std::vector<unsigned char>(bytes, bytes + size));
        const Network network(TensorFile::parse(exact.data(), size));
        int64_t widest = network.inputs();
        for (const NetworkLayer& layer : network.layers()) widest = std::max(widest, layer.neurons);
        if (widest > 1000) return true;
        const NetworkRows rows(40, 1, network.inputs());
        stream_gives(network, rows, false, run(network, rows, false, 1));
        if (network.cochlea()) hears_in_chunks(network);
        feeds_its_steps(network);
        altered_states_are_refused_or_run(network, 4);
        learns_or_refuses(network);
        return true;
    } catch (const FileError& error) {
        CHECK(error.what()[0] && !std::strchr(error.what(), '\n'));
    } catch (const std::bad_alloc&) {
    }
    return false;
}

}  // namespace srcell
