// Learners, for the sanitizers and other processors: what networks made here learn has the same bits on every ISA and
// on several threads, and matches the hashes recorded below; what is refused changes nothing.
#include <cmath>
#include <stdexcept>

#include "events_problem.h"
#include "network_file.h"

using namespace srcell;

namespace {

uint64_t hash(const std::vector<char>& bytes) {
    uint64_t sum = 0xCBF29CE484222325u;
    for (const char c : bytes) sum = (sum ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
    return sum;
}

struct Case {
    std::vector<int64_t> sizes;
    bool lateral;
    const char* readout;
    uint64_t hash;  // the same on x86-64 and on AArch64
    bool resonant = false;
    FileWith with = FileWith::kNothing;
};

const Case kCases[] = {
    {{40, 30, 6}, false, "votes", 0xd3389a742c3ed8a7},
    {{20, 150, 40, 17}, false, "linear", 0xff1ca56507178bc4},
    {{12, 140}, true, "linear", 0x04cb15da07b9ad9b},
    {{12, 140, 10}, true, "votes", 0x5c1e48abd24a3da8, true},
    {{20, 150, 17}, false, "linear", 0x8ce26dca35092170, false, FileWith::kDelays},
    {{70, 20, 130}, true, "linear", 0xf220b7dd6a94c0ea, true, FileWith::kDelays},
    {{12, 140, 10}, true, "votes", 0x7f9f6669d226462b, false, FileWith::kRecurrentDelays},
    {{12, 140, 10}, true, "linear", 0x687774fa6461233c, false, FileWith::kConstants},
    {{12, 140, 10}, true, "votes", 0x879c4f0623c96c96, false, FileWith::kStandardised},
};

// The state after a step for each kind of target.
std::vector<char> learnt(const std::string& file, int threads) {
    const Network network = network_of(file);
    Learner learner(network, {1e-2, 1, false, 0, {}});
    const NetworkRows rows(70, 2, network.inputs());
    const int64_t lengths[] = {70, 41};
    NetworkInput input = rows.input(true);
    std::vector<int64_t> offsets = rows.offsets;
    for (size_t row = 70 + 41; row <= 140; ++row) offsets[row] = offsets[70 + 41];  // no event past the length
    input.events.offsets = offsets.data(), input.events.count = offsets.back(), input.lengths = lengths;
    for (const bool of_values : {false, true})
        for (const bool every : {false, true})
            CHECK(std::isfinite(learner.step(input, TwoTargets(network, 70, of_values, every).view(), threads)));
    return state_of(learner);
}

void the_same_bits_everywhere() {
    bool all_as_written = true;
    for (const Case& c : kCases) {
        const std::string file = network_file(c.sizes, c.lateral, c.readout, 1, c.resonant, c.with);
        std::vector<char> first;
        for (const Kernels* kernels : available_kernels()) {
            set_environment("SRCELL_ISA", kernels->isa);
            const std::vector<char> made = learnt(file, 1);
            if (first.empty()) first = made;
            CHECK(made == first && learnt(file, 3) == first);
        }
        set_environment("SRCELL_ISA", "");
        if (hash(first) != c.hash) std::fprintf(stderr, "hash 0x%llx\n", static_cast<unsigned long long>(hash(first)));
        all_as_written &= hash(first) == c.hash;
    }
    CHECK(all_as_written);
}

void what_is_refused_changes_nothing() {
    const Network network = network_of(network_file({12, 20, 10}, true, "linear"));
    Learner learner(network, {1e-2, 1, false, 0, {}});
    NetworkRows rows(20, 2, 12);
    const TwoTargets targets(network, 20, false, false);
    learner.step(rows.input(true), targets.view(), 1);
    const std::vector<char> before = state_of(learner);
    const int64_t no_class[] = {0, 3}, negative[] = {-1, 0};
    const std::vector<float> huge(6, 3e38f), nan(6, NAN);
    for (const LearningTargets& wrong : {LearningTargets{no_class, nullptr, false},
                                         {negative, nullptr, false},
                                         {nullptr, huge.data(), false},
                                         {nullptr, nan.data(), false},
                                         {nullptr, nullptr, false}})
        CHECK(refused([&] { learner.step(rows.input(true), wrong, 1); }));
    NetworkInput without = rows.input(true);
    without.batch = 0;
    CHECK(refused([&] { learner.step(without, targets.view(), 1); }));
    rows.indices.back() = 12;
    CHECK(refused([&] { learner.step(rows.input(true), targets.view(), 1); }));
    CHECK(state_of(learner) == before);
    Numbers numbers(5);
    for (int round = 0; round < 300; ++round) {
        std::vector<char> altered = before;
        altered[static_cast<size_t>(numbers.below(static_cast<int64_t>(altered.size())))] ^=
            static_cast<char>(1 << numbers.below(8));
        CHECK(refused([&] { learner.restore(altered.data(), altered.size()); }) && state_of(learner) == before);
    }
    CHECK(refused([&] { learner.restore(before.data(), before.size() - 1); }));
    for (const LearningSettings& wrong : {LearningSettings{0, 1, false, 0, {}},
                                          {NAN, 1, false, 0, {}},
                                          {1e-3, -1, false, 0, {}},
                                          {1e-3, 1, false, -1, {}},
                                          {1e-3, 1, false, 2, {"one"}}})
        CHECK(refused([&] { const Learner made(network, wrong); }));
    CHECK(refused([] { const Learner made(network_of(integer_network_file(12, 30)), {1e-3, 1, false, 0, {}}); }));
}

void other_classes_have_names() {
    const Network network = network_of(network_file({12, 20, 10}, true, "linear"));
    const std::vector<std::string> names = {"yes", "a \"quoted\" \\ one", "line\nbreak", "\xC3\xA9"};
    const Learner learner(network, {1e-2, 1, true, 4, names});
    const std::vector<unsigned char> file = learner.file();
    const Network made(TensorFile::parse(file.data(), file.size()));
    CHECK(made.readout().classes == 4 && learner.parts().size() == 2);
    CHECK(made.texts().at("classes") == "[\"yes\",\"a \\\"quoted\\\" \\\\ one\",\"line\\u000abreak\",\"\xC3\xA9\"]");
    CHECK(made.texts().at("note") == network.texts().at("note"));
    const std::vector<unsigned char> unnamed = Learner(made, {1e-2, 1, true, 3, {}}).file();
    CHECK(TensorFile::parse(unnamed.data(), unnamed.size()).texts.count("classes") == 0);
    for (const auto& [name, tensor] : network.file().tensors)
        if (name.compare(0, 8, "readout.") != 0)
            CHECK(std::memcmp(tensor.bytes, made.file().tensors.at(name).bytes, tensor.size()) == 0);
}

#if !defined(__SANITIZE_THREAD__)
// Another thread writes into the arrays during a step: no access is out of bounds.
void a_step_survives_arrays_that_change() {
    for (const auto& [lateral, with] :
         {std::pair(false, FileWith::kNothing), std::pair(true, FileWith::kDelays),
          std::pair(true, FileWith::kConstants), std::pair(true, FileWith::kStandardised)}) {
        const Network network = network_of(network_file({12, 140, 20}, lateral, "linear", 1, false, with));
        Learner learner(network, {1e-3, 1, false, 0, {}});
        NetworkRows rows(40, 2, 12);
        std::vector<int64_t> lengths = {40, 40}, labels = {0, 1};
        const auto count = static_cast<int64_t>(rows.indices.size());
        const ConcurrentWriter writer(rows.offsets, rows.indices, lengths, labels);
        expect_both_outcomes([&] {
            NetworkInput input = rows.input(true);
            input.events.count = count, input.lengths = lengths.data();
            return refused([&] { learner.step(input, {labels.data(), nullptr, false}, 1); }) ? 0 : -1;
        });
    }
}
#endif

}  // namespace

int main() {
    the_same_bits_everywhere();
    what_is_refused_changes_nothing();
    other_classes_have_names();
#if !defined(__SANITIZE_THREAD__)
    a_step_survives_arrays_that_change();
#endif
    for (const FileWith with : {FileWith::kNothing, FileWith::kDelays, FileWith::kMap, FileWith::kStandardised})
        for (const char* readout : {"votes", "linear"})
            learns_or_refuses(network_of(network_file({12, 20, 10}, true, readout, 1, true, with)));
    learns_or_refuses(network_of(integer_network_file(12, 30)));
}
