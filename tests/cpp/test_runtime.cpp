// The runtime, for the sanitizers and other processors: networks made here run whole and as streams with the same bits
// on every ISA, on several threads and in several streams at once; their spikes are those written down below; every
// shortened and altered file is refused or read, and nothing else. And the encoder for callers without Python.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include "../../csrc/runtime/encoding.h"
#include "../../csrc/runtime/network.h"
#include "events_problem.h"
#include "network_file.h"

using namespace srcell;

namespace {

Network network_of(const std::string& bytes) {
    return Network(TensorFile::parse(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

// Events of B samples over T steps, each input active in about one of eight.
struct Rows {
    int64_t steps, batch, inputs;
    std::vector<int64_t> offsets = {0};
    std::vector<int32_t> indices;
    std::vector<float> values;

    Rows(int64_t steps, int64_t batch, int64_t inputs) : steps(steps), batch(batch), inputs(inputs) {
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

bool same_bits(const float* x, const float* y, size_t count) {
    return count == 0 || !std::memcmp(x, y, count * sizeof(float));
}

struct Outcome {
    std::vector<float> logits;
    std::vector<std::vector<float>> spikes;
    std::vector<int64_t> events;

    bool operator==(const Outcome& other) const {
        bool same = logits.size() == other.logits.size() && events == other.events &&
                    same_bits(logits.data(), other.logits.data(), logits.size());
        for (size_t k = 0; k < spikes.size(); ++k)
            same &= same_bits(spikes[k].data(), other.spikes[k].data(), spikes[k].size());
        return same;
    }
};

Outcome run(const Network& network, const Rows& rows, bool graded, int threads) {
    Outcome made;
    std::vector<float*> spikes;
    for (const NetworkLayer& layer : network.layers())
        made.spikes.emplace_back(static_cast<size_t>(rows.steps * rows.batch * layer.neurons));
    for (auto& of_layer : made.spikes) spikes.push_back(of_layer.data());
    made.logits.resize(static_cast<size_t>(rows.batch * network.readout().classes));
    made.events.resize(network.layers().size() + 1);
    network.run(rows.input(graded), {made.logits.data(), spikes.data(), made.events.data()}, threads);
    return made;
}

// The same as `expected`, step by step.
void stream_gives(const Network& network, const Rows& rows, bool graded, const Outcome& expected) {
    Stream stream(network, rows.batch);
    std::vector<float> logits(expected.logits.size());
    for (int round = 0; round < 2; ++round, stream.reset())
        for (int64_t t = 0; t < rows.steps; ++t) {
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
                const float* whole = expected.spikes[k].data() + static_cast<size_t>(t) * plane;
                CHECK(same_bits(stream.spikes(k), whole, plane));
                std::vector<float> state(3 * plane);
                stream.values(k, state.data());
                for (size_t n = 0; n < plane; ++n) {
                    const float h = state[plane + n], spike = h > 0 ? h : 0;
                    CHECK(same_bits(&spike, whole + n, 1));
                }
            }
            if (t + 1 == rows.steps) {
                stream.logits(logits.data());
                CHECK(same_bits(logits.data(), expected.logits.data(), logits.size()));
            }
        }
}

uint64_t hash(const Outcome& outcome) {
    uint64_t sum = 0xCBF29CE484222325u;
    const auto add = [&](const std::vector<float>& values) {
        for (const float value : values) {
            uint32_t bits;
            std::memcpy(&bits, &value, sizeof bits);
            sum = (sum ^ bits) * 0x100000001B3u;
        }
    };
    for (const auto& spikes : outcome.spikes) add(spikes);
    add(outcome.logits);
    return sum;
}

struct Case {
    std::vector<int64_t> sizes;
    bool lateral;
    const char* readout;
    bool graded;
    uint64_t hash;  // on x86-64 and on AArch64
};

const Case kCases[] = {
    {{40, 30, 6}, false, "votes", false, 0xc3348befa413c3bd},
    {{20, 150, 40, 17}, false, "linear", true, 0xacb7a385178c3275},
    {{12, 140}, true, "linear", true, 0xae4c6362792e70c5},
    {{9, 20, 8}, true, "votes", false, 0xa75cd6e6ac914460},
    {{5, 1}, true, "none", false, 0x67c970eb0759d0aa},
};

void same_bits_everywhere() {
    bool all_as_written = true;
    for (const Case& c : kCases) {
        const std::string bytes = network_file(c.sizes, c.lateral, c.readout);
        const Rows rows(70, 3, c.sizes.front());
        Outcome first;
        for (const Kernels* kernels : available_kernels()) {
            set_environment("SRCELL_ISA", kernels->isa);
            const Network network = network_of(bytes);
            CHECK(network.kernels().isa == kernels->isa);
            const Outcome made = run(network, rows, c.graded, 1);
            if (first.spikes.empty()) first = made;
            CHECK(made == first && run(network, rows, c.graded, 3) == first);
            stream_gives(network, rows, c.graded, made);
        }
        set_environment("SRCELL_ISA", "");
        for (const int64_t events : first.events) CHECK(events > 0);
        if (hash(first) != c.hash) std::fprintf(stderr, "hash 0x%llx\n", static_cast<unsigned long long>(hash(first)));
        all_as_written &= hash(first) == c.hash;
    }
    CHECK(all_as_written);
}

void streams_run_side_by_side() {
    const Network network = network_of(network_file({12, 140, 20}, true, "votes"));
    const Rows rows(40, 2, 12);
    const Outcome expected = run(network, rows, true, 1);
    std::vector<std::thread> threads;
    for (int k = 0; k < 3; ++k)
        threads.emplace_back([&] {
            stream_gives(network, rows, true, expected);
            CHECK(run(network, rows, true, 2) == expected);
        });
    for (std::thread& thread : threads) thread.join();
}

template <class Call>
bool refused(Call call) {
    try {
        call();
        return false;
    } catch (const std::invalid_argument&) {
        return true;
    }
}

void invalid_events_are_refused() {
    const Network network = network_of(network_file({12, 140, 20}, true, "votes"));
    Stream stream(network, 2);
    std::vector<char> before(stream.state_bytes()), after(before);
    stream.save(before.data());
    const int32_t indices[] = {3, 12, -1};
    const int64_t bad_index[] = {0, 1, 2}, descends[] = {0, 2, 1}, negative[] = {0, 0, 3};
    for (const int64_t* offsets : {bad_index, descends, negative})
        CHECK(refused([&] { stream.step(offsets, indices, nullptr, offsets[2]); }));
    stream.save(after.data());
    CHECK(before == after);
    Rows rows(5, 2, 12);
    rows.indices.back() = 12;
    CHECK(refused([&] { run(network, rows, false, 1); }));
    CHECK(refused([&] { stream.restore(before.data(), before.size() - 1); }));
}

#if !defined(__SANITIZE_THREAD__)
// Another thread writes into the arrays of events during the calls: no access is out of bounds.
void events_that_change_during_a_call_are_survived() {
    for (const bool lateral : {false, true}) {
        const Network network = network_of(network_file({12, 140, 20}, lateral, "votes"));
        Rows rows(40, 3, 12), step(1, 3, 12);
        std::vector<int64_t> lengths = {40, 40, 40};
        const auto count = static_cast<int64_t>(step.indices.size());
        Stream stream(network, 3);
        const Meddler meddler(rows.offsets, rows.indices, lengths, step.offsets, step.indices);
        calls_survive([&] {
            NetworkInput input = rows.input(true);
            input.events.count = static_cast<int64_t>(rows.indices.size());
            input.lengths = lengths.data();
            std::vector<float> logits(60);
            std::vector<float*> spikes(2);
            std::vector<int64_t> events(3);
            const bool no = refused([&] { network.run(input, {logits.data(), spikes.data(), events.data()}, 1); });
            return no ? 0 : -1;
        });
        calls_survive([&] {
            const bool no = refused([&] { stream.step(step.offsets.data(), step.indices.data(), nullptr, count); });
            return no ? 0 : -1;
        });
    }
}
#endif

// The events of one sample of a batch are those that it has alone under its number; and what is refused.
void encodes_images() {
    constexpr int64_t kBatch = 3, kPixels = 50, kSteps = 30, kRows = kBatch * (4 + kSteps);
    Numbers numbers(11);
    std::vector<float> images(kBatch * kPixels);
    for (float& pixel : images) pixel = static_cast<float>(std::max<int64_t>(numbers.below(32) - 15, 0)) / 16;
    const RateSettings settings = {kSteps, 4, 0.5, false, 9};
    std::vector<int64_t> offsets(kRows + 1);
    std::vector<int32_t> indices(kBatch * kPixels * kSteps, -7);
    const auto encode = [&](const RateSettings& given, int64_t room) {
        return encode_rate(given, kBatch, kPixels, images.data(), nullptr, offsets.data(), indices.data(), room);
    };
    CHECK(encode(settings, 0) > 100 && indices[0] == -7);
    const int64_t events = encode(settings, static_cast<int64_t>(indices.size()));
    CHECK(events == offsets[kRows] && offsets[4] == 0 && indices[static_cast<size_t>(events)] == -7);
    const int64_t alone = 2;
    std::vector<int64_t> its_offsets(kRows / kBatch + 1);
    std::vector<int32_t> its_indices(kPixels * kSteps);
    const int64_t its = encode_rate(settings, 1, kPixels, images.data() + alone * kPixels, &alone, its_offsets.data(),
                                    its_indices.data(), kPixels * kSteps);
    const int64_t first = offsets[alone * kRows / kBatch];
    CHECK(its == events - first && std::equal(its_indices.begin(), its_indices.begin() + its, indices.begin() + first));
    for (const RateSettings& wrong : {RateSettings{-1, 4, 0.5, false, 9}, RateSettings{kSteps, -1, 0.5, false, 9},
                                      RateSettings{kSteps, 4, -0.5, false, 9}, RateSettings{kSteps, 4, NAN, false, 9}})
        CHECK(refused([&] { encode(wrong, 0); }));
    images[60] = 1.5f;
    CHECK(refused([&] { encode(settings, 0); }));
}

// A file in which a byte was changed, or of which a part is missing, is refused as such, or is a network.
void altered_files() {
    const std::string bytes = network_file({3, 2}, true, "linear");
    int read = 0;
    const auto attempt = [&](const std::string& altered) {
        try {
            const Array<unsigned char> exact(std::vector<unsigned char>(altered.begin(), altered.end()));
            const Network network(TensorFile::parse(exact.data(), altered.size()));
            ++read;
        } catch (const FileError& error) {
            CHECK(error.what()[0] && !std::strchr(error.what(), '\n'));
        }
    };
    attempt(bytes);
    CHECK(read == 1);
    for (size_t size = 0; size < bytes.size(); ++size) attempt(bytes.substr(0, size));
    CHECK(read == 1);
    Numbers numbers(3);
    for (size_t at = 0; at < bytes.size(); ++at)
        for (int k = 0; k < 4; ++k) {
            std::string altered = bytes;
            altered[at] = static_cast<char>(numbers.below(256));
            attempt(altered);
        }
}

}  // namespace

int main() {
    same_bits_everywhere();
    streams_run_side_by_side();
    invalid_events_are_refused();
#if !defined(__SANITIZE_THREAD__)
    events_that_change_during_a_call_are_survived();
#endif
    encodes_images();
    altered_files();
}
