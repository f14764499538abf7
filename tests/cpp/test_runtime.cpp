// The runtime, for the sanitizers and other processors: networks made here run in one call and as streams with the same
// bits on every ISA, on several threads and in several streams at once; their spikes match the hashes recorded below;
// every shortened or altered file is either refused or read. Also tests the encoder for callers without Python.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include "../../csrc/runtime/camera.h"
#include "../../csrc/runtime/encoding.h"
#include "../../csrc/runtime/network.h"
#include "encode_problem.h"
#include "events_problem.h"
#include "network_file.h"

using namespace srcell;

namespace {

uint64_t hash(const Outcome& outcome) {
    uint64_t sum = 0xCBF29CE484222325u;
    std::vector<float> all;
    for (const auto& spikes : outcome.spikes) all.insert(all.end(), spikes.all.begin(), spikes.all.end());
    all.insert(all.end(), outcome.logits.all.begin(), outcome.logits.all.end());
    for (const float value : all) {
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        sum = (sum ^ bits) * 0x100000001B3u;
    }
    return sum;
}

struct Case {
    std::vector<int64_t> sizes;
    bool lateral;
    const char* readout;
    bool graded;
    uint64_t hash;  // the same on x86-64 and on AArch64
    bool resonant = false;
    FileWith with = FileWith::kNothing;
};

const Case kCases[] = {
    {{40, 30, 6}, false, "votes", false, 0xc3348befa413c3bd},
    {{20, 150, 40, 17}, false, "linear", true, 0xacb7a385178c3275},
    {{12, 140}, true, "linear", true, 0xae4c6362792e70c5},
    {{9, 20, 8}, true, "votes", false, 0xa75cd6e6ac914460},
    {{5, 1}, true, "none", false, 0x67c970eb0759d0aa},
    {{20, 150, 17}, false, "linear", true, 0xffc4723a344de94f, true},
    {{12, 140, 10}, true, "votes", false, 0xb9ccfa1ff9b24dec, true},
    {{20, 150, 17}, false, "linear", true, 0x2e9c55aeb0b6ed9a, false, FileWith::kDelays},
    {{12, 140, 10}, true, "votes", false, 0x37fd2169f3de0fa7, true, FileWith::kDelays},
    {{12, 140, 10}, true, "votes", true, 0xa3bfcc4c52ae66ea, false, FileWith::kRecurrentDelays},
    {{70, 20, 130}, true, "linear", true, 0x9ed849a764f5c0fe, false, FileWith::kDelays},
    {{12, 140, 10}, true, "votes", true, 0x33f968b9ed3566e7, false, FileWith::kConstants},
    {{12, 140, 30}, true, "linear", true, 0x5765113ff548d22c, true, FileWith::kMap},
    {{24, 30, 20}, false, "votes", false, 0xa000a629db4c385f, false, FileWith::kMap},
    {{12, 140, 10}, true, "votes", true, 0xa3551f4ff66d8428, false, FileWith::kStandardised},
    {{24, 30, 20}, false, "linear", false, 0x3fa0fe2c3b94e0ad, true, FileWith::kHeldMap},
};

void same_bits_everywhere() {
    bool all_as_written = true;
    for (const Case& c : kCases) {
        const std::string bytes = network_file(c.sizes, c.lateral, c.readout, 1, c.resonant, c.with);
        const NetworkRows rows(70, 3, c.sizes.front());
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

// q[t] from i[t-1] and q[t-1], read from the stream before and after each step.
void q_follows_from_the_step_before() {
    const Network network = network_of(network_file({6, 20}, false, "none", 1, true));
    const NetworkLayer& layer = network.layers()[0];
    const Turn<float> turn = std::get<FloatNeurons>(layer.kind).turn.view();
    const NetworkRows rows(30, 1, 6);
    Stream stream(network, 1);
    std::vector<float> before(60), after(60), q(20), next(20);
    int turned = 0;
    for (int64_t t = 0; t < rows.steps; ++t) {
        stream.values(0, before.data());
        stream.quadrature(0, q.data());
        const int64_t begin = rows.offsets[static_cast<size_t>(t)], end = rows.offsets[static_cast<size_t>(t + 1)];
        const int64_t offsets[] = {0, end - begin};
        stream.step(offsets, rows.indices.data() + begin, nullptr, end - begin);
        stream.quadrature(0, next.data());
        for (size_t n = 0; n < 20; ++n) {
            const size_t at = turn.stride ? n : 0;
            const float along = turn.along[at] * q[n], made = std::fma(turn.across[at], before[n], along);
            CHECK(next[n] == (std::fabs(made) < 0x1p-100f ? 0 : made));
            turned += next[n] != 0;
        }
    }
    CHECK(turned > 300);
}

// A sound in chunks of any lengths gives the same logits, on all processors; what is refused changes nothing.
void sounds_are_heard_the_same_everywhere() {
    Numbers numbers(11);
    std::vector<float> sound(3000);
    for (float& x : sound) x = static_cast<float>(numbers.below(2048)) / 1024 - 1;
    for (const auto& [readout, expected] :
         {std::pair("linear", uint64_t(0x60b49fec734055e1)), std::pair("votes", uint64_t(0xa7a322bead0d79ee))}) {
        const Network network = network_of(network_file({12, 40, 10}, true, readout, 1, false, FileWith::kSound));
        Stream whole(network, 1), chunks(network, 1);
        CHECK(whole.hear(sound.data(), 3000) == 300);
        int64_t steps = 0;
        for (int64_t at = 0; at < 3000;) {
            const int64_t size = std::min<int64_t>(numbers.below(100), 3000 - at);
            steps += chunks.hear(sound.data() + at, size);
            at += size;
            const std::vector<float> bad = {0, INFINITY};
            std::vector<char> saved(chunks.state_bytes());
            chunks.save(saved.data());
            CHECK(refused([&] { chunks.hear(bad.data(), 2); }));
            chunks.reset();
            chunks.restore(saved.data(), saved.size());
        }
        std::vector<float> logits(static_cast<size_t>(network.readout().classes)), others(logits);
        whole.logits(logits.data()), chunks.logits(others.data());
        const Outcome made = {result_of(logits.data(), logits.size()), {result_of(whole.spikes(1), 10)}, {}, {}};
        CHECK(steps == 300 && logits == others);
        if (hash(made) != expected) std::fprintf(stderr, "hash 0x%llx\n", static_cast<unsigned long long>(hash(made)));
        CHECK(hash(made) == expected);
    }
    const Network deaf = network_of(network_file({12, 10}, true, "votes")),
                  hearing = network_of(network_file({12, 10}, true, "votes", 1, false, FileWith::kSound));
    Stream one(deaf, 1), two(hearing, 2);
    CHECK(refused([&] { one.hear(sound.data(), 10); }) && refused([&] { two.hear(sound.data(), 10); }));
}

void streams_run_side_by_side() {
    const Network network = network_of(network_file({12, 140, 20}, true, "votes"));
    const NetworkRows rows(40, 2, 12);
    const Outcome expected = run(network, rows, true, 1);
    std::vector<std::thread> threads;
    for (int k = 0; k < 3; ++k)
        threads.emplace_back([&] {
            stream_gives(network, rows, true, expected);
            CHECK(run(network, rows, true, 2) == expected);
        });
    for (std::thread& thread : threads) thread.join();
}

// A refused step changes nothing: neither the saved state nor what the following steps give.
void invalid_events_are_refused(FileWith with) {
    const Network network = network_of(network_file({12, 140, 20}, true, "votes", 1, false, with));
    Stream stream(network, 2), other(network, 2);
    std::vector<float> input(24, 1.0f);
    for (int t = 0; t < 20; ++t) stream.step_dense(input.data()), other.step_dense(input.data());
    std::vector<char> before(stream.state_bytes()), after(before);
    stream.save(before.data());
    const int32_t indices[] = {3, 12, -1};
    const int64_t bad_index[] = {0, 1, 2}, descends[] = {0, 2, 1}, negative[] = {0, 0, 3};
    for (const int64_t* offsets : {bad_index, descends, negative})
        CHECK(refused([&] { stream.step(offsets, indices, nullptr, offsets[2]); }));
    stream.save(after.data());
    CHECK(before == after);
    for (int t = 0; t < 30; ++t) {
        stream.step_dense(input.data()), other.step_dense(input.data());
        CHECK(result_of(stream.spikes(0), 280) == result_of(other.spikes(0), 280));
    }
    NetworkRows rows(5, 2, 12);
    rows.indices.back() = 12;
    CHECK(refused([&] { run(network, rows, false, 1); }));
    CHECK(refused([&] { stream.restore(before.data(), before.size() - 1); }));
}

#if !defined(__SANITIZE_THREAD__)
// Another thread writes into the arrays of events during the calls: no access is out of bounds.
void kernels_survive_events_that_change_during_a_call() {
    for (const auto& [lateral, with] :
         {std::pair(false, FileWith::kNothing), std::pair(true, FileWith::kNothing), std::pair(true, FileWith::kDelays),
          std::pair(true, FileWith::kRecurrentDelays), std::pair(false, FileWith::kConstants),
          std::pair(false, FileWith::kMap), std::pair(true, FileWith::kStandardised)}) {
        const Network network = network_of(network_file({12, 140, 20}, lateral, "votes", 1, false, with));
        NetworkRows rows(40, 3, 12), step(1, 3, 12);
        std::vector<int64_t> lengths = {40, 40, 40};
        const auto count = static_cast<int64_t>(step.indices.size());
        Stream stream(network, 3);
        const ConcurrentWriter writer(rows.offsets, rows.indices, lengths, step.offsets, step.indices);
        expect_both_outcomes([&] {
            NetworkInput input = rows.input(true);
            input.events.count = static_cast<int64_t>(rows.indices.size());
            input.lengths = lengths.data();
            std::vector<float> logits(60);
            std::vector<float*> spikes(2);
            std::vector<int64_t> events(3);
            std::vector<int64_t> operations(2);
            const bool no = refused(
                [&] { network.run(input, {logits.data(), spikes.data(), events.data(), operations.data()}, 1); });
            return no ? 0 : -1;
        });
        expect_both_outcomes([&] {
            const bool no = refused([&] { stream.step(step.offsets.data(), step.indices.data(), nullptr, count); });
            return no ? 0 : -1;
        });
    }
}
#endif

// The events equal the definition, with sample numbers 0, 1, ... or given ones; nothing is written past `room`.
void encodes_images() {
    Input in(7);
    EncodeProblem q = encode_problem(in, 3, 50, 30);
    q.rate = true;
    for (const bool numbered : {true, false}) {
        const Encoded expected = by_definition(q);
        const auto events = static_cast<int64_t>(expected.indices.size());
        const RateSettings settings = {q.steps, q.prefix, q.gain, q.thinned, q.seed};
        std::vector<int64_t> offsets(expected.offsets.size());
        std::vector<int32_t> indices(expected.indices.size() + 1, -7), none(1, -7);
        const auto encode = [&](const RateSettings& given, std::vector<int32_t>& into, int64_t room) {
            return encode_rate(given, q.samples, q.pixels, q.images.data(), numbered ? q.index.data() : nullptr,
                               offsets.data(), into.data(), room);
        };
        CHECK(events > 100 && encode(settings, none, 0) == events && none[0] == -7);
        CHECK(encode(settings, indices, events + 1) == events && indices.back() == -7);
        indices.pop_back();
        CHECK(Encoded({-1, offsets, indices}) == expected);
        for (const RateSettings& wrong : {RateSettings{-1, 4, 0.5, false, 9},
                                          {30, -1, 0.5, false, 9},
                                          {30, 4, -0.5, false, 9},
                                          {30, 4, NAN, false, 9}})
            CHECK(refused([&] { encode(wrong, none, 0); }));
        const float before = std::exchange(q.images[60], 1.5f);
        CHECK(refused([&] { encode(settings, none, 0); }));
        q.images[60] = before;
        for (int64_t b = 0; b < q.samples; ++b) q.index[b] = b;
    }
}

struct Recorded {
    std::vector<int64_t> offsets;
    std::vector<int32_t> indices;
    bool operator==(const Recorded& other) const { return offsets == other.offsets && indices == other.indices; }
};

constexpr double kMovement[] = {0, 0.5, -0.5, 7, 3.3, 1.2, 20, -4, 0};

// In memory of exactly the right size, for the address sanitizer.
Recorded record(int64_t side, int64_t width, int threads, bool frames, const CameraSettings& settings) {
    Numbers numbers(3);
    const int64_t samples = 2, steps = 25,
                  count = samples * (frames ? steps * settings.height * settings.width : side * side);
    std::vector<float> seen(static_cast<size_t>(count));
    for (float& x : seen) x = static_cast<float>(numbers.below(1000)) / 999;
    Recording recording(settings, samples, steps, nullptr, threads);
    if (frames)
        recording.draw(seen.data(), 0.1);
    else
        recording.draw(seen.data(), side, side, {width > 8 ? 1.5 : 0.0, 0.2, 0.7, 3, kMovement});
    Recorded made = {{recording.offsets(), recording.offsets() + samples * steps + 1},
                     std::vector<int32_t>(static_cast<size_t>(recording.events()))};
    recording.write(made.indices.data());
    return made;
}

// Cameras of sizes near a group of pixels: the same events on one thread and on three, ascending in each row.
void a_camera_sees() {
    int64_t events = 0;
    for (const int64_t width : {1, 15, 16, 17, 33})
        for (const int64_t side : {1, 9, 40})
            for (const bool frames : {false, true}) {
                const CameraSettings settings = {3, width, 0.1, 0.15, 0.2, 1, 0.02, 9};
                const Recorded one = record(side + 12, width, 1, frames, settings);
                CHECK(one == record(side + 12, width, 3, frames, settings));
                for (size_t row = 0; row + 1 < one.offsets.size(); ++row)
                    for (int64_t k = one.offsets[row]; k < one.offsets[row + 1]; ++k) {
                        const int32_t input = one.indices[static_cast<size_t>(k)];
                        CHECK(input >= 0 && input < 6 * width);
                        CHECK(k == one.offsets[row] || one.indices[static_cast<size_t>(k - 1)] < input);
                    }
                events += one.offsets.back();
            }
    CHECK(events > 1000);
    for (const CameraSettings& wrong : {CameraSettings{3, 3, 0, 0.1, 0, 0, 0, 0},
                                        {3, 3, 0.1, NAN, 0, 0, 0, 0},
                                        {3, 3, 0.1, 0.1, 0.5, 0, 0, 0},
                                        {3, 3, 0.1, 0.1, 0, -1, 0, 0},
                                        {3, 3, 0.1, 0.1, 0, 0, 1.5, 0},
                                        {-3, 3, 0.1, 0.1, 0, 0, 0, 0}})
        CHECK(refused([&] { record(9, 3, 1, false, wrong); }));
    const CameraSettings settings = {3, 3, 0.1, 0.1, 0, 0, 0, 0};
    const float picture[] = {0, 1, NAN, 0.5f};
    const double backwards[] = {1, 0, 0, 1, 0, 0}, away[] = {0, 9, 0};
    CHECK(refused([&] { Recording(settings, 1, 5, nullptr, 1).draw(picture, 2, 2, {0, 0, 0, 1, kMovement}); }));
    CHECK(refused([&] { Recording(settings, 1, 5, nullptr, 1).draw(picture, 1, 2, {0, 0, 0, 2, backwards}); }));
    CHECK(refused([&] { Recording(settings, 1, 5, nullptr, 1).draw(picture, 1, 2, {0, 0, 0, 1, away}); }));
    CHECK(refused([&] { Recording(settings, 1, 5, nullptr, 1).draw(picture, 1, 2, {9, 0, 0, 1, kMovement}); }));
    CHECK(refused([&] { Recording(settings, 1, -5, nullptr, 1); }));
}

// Rows that do not ascend or repeat inputs arrive in the order of the batch.
void unsorted_rows_pass_delays_in_their_order() {
    const Network network = network_of(network_file({12, 40, 10}, false, "linear", 1, false, FileWith::kDelays));
    NetworkRows rows(60, 2, 12);
    Numbers numbers(5);
    for (int32_t& index : rows.indices)
        if (numbers.below(2)) index = static_cast<int32_t>(numbers.below(12));
    const Outcome whole = run(network, rows, true, 2);
    Stream stream(network, 2);
    for (int64_t t = 0; t < 60; ++t) {
        std::vector<int64_t> offsets = {0};
        std::vector<int32_t> indices;
        std::vector<float> values;
        for (const int64_t row : {t, 60 + t}) {
            const auto begin = rows.offsets[static_cast<size_t>(row)], end = rows.offsets[static_cast<size_t>(row + 1)];
            indices.insert(indices.end(), rows.indices.begin() + begin, rows.indices.begin() + end);
            values.insert(values.end(), rows.values.begin() + begin, rows.values.begin() + end);
            offsets.push_back(static_cast<int64_t>(indices.size()));
        }
        stream.step(offsets.data(), indices.data(), values.data(), offsets.back());
        CHECK(result_of(stream.spikes(0), 80) == result_of(whole.spikes[0].all.data() + 80 * t, 80));
    }
    std::vector<float> logits(6);
    stream.logits(logits.data());
    CHECK(result_of(logits.data(), 6) == whole.logits);
}

// A file with a changed byte or a missing part is refused with a FileError, or is a network that runs.
void altered_files_are_refused_or_run(const std::string& bytes) {
    const auto is_read = [](const std::string& file) {
        return network_agrees(reinterpret_cast<const unsigned char*>(file.data()), file.size());
    };
    CHECK(is_read(bytes));
    for (size_t size = 0; size < bytes.size(); ++size) CHECK(!is_read(bytes.substr(0, size)));
    Numbers numbers(3);
    for (size_t at = 0; at < bytes.size(); ++at)
        for (int k = 0; k < 4; ++k) {
            std::string altered = bytes;
            altered[at] = static_cast<char>(numbers.below(256));
            is_read(altered);
        }
}

}  // namespace

int main() {
    same_bits_everywhere();
    q_follows_from_the_step_before();
    sounds_are_heard_the_same_everywhere();
    streams_run_side_by_side();
    for (const FileWith with : {FileWith::kNothing, FileWith::kDelays, FileWith::kRecurrentDelays, FileWith::kConstants,
                                FileWith::kMap, FileWith::kStandardised})
        invalid_events_are_refused(with);
#if !defined(__SANITIZE_THREAD__)
    kernels_survive_events_that_change_during_a_call();
#endif
    unsorted_rows_pass_delays_in_their_order();
    for (const FileWith with : {FileWith::kDelays, FileWith::kRecurrentDelays, FileWith::kConstants, FileWith::kMap,
                                FileWith::kSound, FileWith::kStandardised})
        for (const char* readout : {"votes", "linear"})
            altered_states_are_refused_or_run(network_of(network_file({12, 20, 6}, true, readout, 1, true, with)), 100);
    altered_states_are_refused_or_run(network_of(integer_network_file(12, 30)), 100);
    encodes_images();
    a_camera_sees();
    for (const bool resonant : {false, true})
        altered_files_are_refused_or_run(
            network_file({3, 2}, true, "linear", 1, resonant, resonant ? FileWith::kDelays : FileWith::kNothing));
    altered_files_are_refused_or_run(network_file({4, 10, 2}, false, "votes", 1, false, FileWith::kMap));
    altered_files_are_refused_or_run(network_file({4, 2}, false, "votes", 1, false, FileWith::kSound));
    altered_files_are_refused_or_run(network_file({3, 2}, false, "votes", 1, false, FileWith::kStandardised));
    altered_files_are_refused_or_run(integer_network_file(3, 6));
}
