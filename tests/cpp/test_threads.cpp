// Several threads call the kernels at once, each call on several threads, on shared inputs: results equal those of a
// single thread, and the thread sanitizer reports nothing. Then the same in a forked child. With the argument `openmp`
// the kernels run on the threads of GNU's runtime, which the thread sanitizer does not know.
#if defined(__linux__)
#include <dlfcn.h>
#endif
#if !defined(_WIN32)
#include <sys/wait.h>
#endif

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>

#include "../../csrc/cpu/event_rows.h"
#include "../../csrc/cpu/memory.h"
#include "../../csrc/cpu/parallel.h"
#include "../../csrc/platform/platform.h"
#include "dense_problem.h"
#include "encode_problem.h"
#include "events_problem.h"

// By default the thread sanitizer ends a forked child that starts threads if the parent had several.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_options() { return "die_after_fork=0"; }

using namespace srcell;

namespace {

constexpr int kCallers = 3;

// Each of two items waits for the other, up to 30 s: with a single thread the other never starts.
void two_threads_meet() {
    std::atomic<int> arrived{0};
    parallel_for(
        2, 2,
        [](void* context, int64_t, int64_t) {
            auto& arrived = *static_cast<std::atomic<int>*>(context);
            ++arrived;
            const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
            while (arrived < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
        },
        &arrived);
    CHECK(arrived == 2);
}

#if defined(__linux__)
// Later calls reuse the threads: their number does not change after the first call.
void calls_start_no_more_threads() {
    const auto call = [] { parallel_for(64, 4, [](void*, int64_t, int64_t) {}, nullptr); };
    const auto threads = [] {
        const std::filesystem::directory_iterator tasks("/proc/self/task");
        return std::distance(begin(tasks), end(tasks));
    };
    call();
    const auto before = threads();
    for (int k = 0; k < 500; ++k) call();
    CHECK(threads() == before);
}
#endif

// The inputs that all callers read.
template <class T>
struct Shared {
    const CellOptions o = {33, 7, 150, true, true, true, true, true, true, true, wild_lengths(7, 33)};
    const int64_t inputs = 70;
    CellInputs<T> in{o};
    EventRows<T> rows{o, inputs, true, in.numbers};
    EventRows<T> altered{o, inputs, true, in.numbers};
    Array<T> weight = in.numbers.template array<T>(o.neurons * inputs);
    Array<T> current = in.plane(o.steps), cells = in.numbers.template array<T>(o.steps * o.batch * inputs);

    Shared() {
        for (const int64_t sample : {3, 5}) altered.indices[altered.offsets[sample * o.steps + 20]] = -1;
        for (T& cell : cells)
            if (cell < T(0.5)) cell = 0;
    }

    // All results of one table's kernels, one after the other.
    std::vector<Result<T>> all(const Kernels& kernels, int threads, int poison) const {
        const Wanted wanted = {true, true, true};
        EventsCall<T>(in, altered, wanted, poison).run(kernels, weight, threads, 3);
        Array<uint64_t> mask(o.batch * o.steps * mask_words(inputs), poison);
        Array<int64_t> offsets(o.batch * o.steps + 1, poison);
        const Samples shape = {o.steps, o.batch, in.lengths.data(), threads};
        const Listed<T> listed =
            list_events(kernels, DenseInput<T>{shape, inputs, cells.data(), mask.data(), offsets.data()}, poison);
        Result<T> indices;
        for (const int32_t index : listed.indices) indices.add(static_cast<T>(index));
        return {scan(kernels, in, current, true, threads, poison),
                run(kernels, in, rows, weight, wanted, threads, poison),
                dots(kernels, in, rows, weight, current, threads, poison), indices, listed.values};
    }
};

// Enough rows to be split into four parts, of which the last is shorter, with faults in different parts.
struct Rows {
    Array<int64_t> offsets{100004}, descending{100004};
    Array<int32_t> indices{100003};

    Rows() {
        for (int64_t k = 0; k < offsets.size(); ++k) offsets[k] = descending[k] = k;
        for (int32_t& index : indices) index = 1;
        indices[50000] = indices[99000] = 7;
        indices[indices.size() - 1] = 8;
        descending[descending.size() - 1] = 0;
    }

    void check(int threads) const {
        const auto fault = [&](const Array<int64_t>& from, int64_t inputs) {
            const int64_t rows = indices.size();
            const FoundFault found =
                find_fault({from.data(), indices.data(), nullptr, nullptr, nullptr, 1, rows, inputs, rows, threads});
            return std::pair(found.fault, found.position);
        };
        CHECK(fault(offsets, 7) == std::pair(Fault::kIndex, int64_t(50000)));
        CHECK(fault(offsets, 8) == std::pair(Fault::kIndex, indices.size() - 1));
        CHECK(fault(offsets, 9) == std::pair(Fault::kNone, int64_t(0)));
        CHECK(fault(descending, 9) == std::pair(Fault::kDescent, indices.size()));
    }
};

// A block keeps what was written to it while other threads acquire and release blocks.
void use_blocks(int caller) {
    const size_t bytes = size_t(1 + caller) << 20;
    for (int round = 0; round < 20; ++round) {
        char* block = static_cast<char*>(acquire_block(bytes));
        CHECK(block != nullptr);
        block[0] = block[bytes - 1] = static_cast<char>(caller + round);
        std::this_thread::yield();
        CHECK(block[0] == static_cast<char>(caller + round) && block[bytes - 1] == block[0]);
        release_block(block, bytes);
    }
}

struct Work {
    Shared<float> singles;
    Shared<double> doubles;
    const EncodeProblem rates = images(true), latencies = images(false);
    Rows rows;
    const std::vector<Result<float>> of_singles = singles.all(*kernels_scalar(), 1, kPoison);
    const std::vector<Result<double>> of_doubles = doubles.all(*kernels_scalar(), 1, kPoison);
    const Encoded of_rates = by_definition(rates), of_latencies = by_definition(latencies);

    static EncodeProblem images(bool rate) {
        Input in(3);
        EncodeProblem q = encode_problem(in, 6, 90, 20);
        q.rate = rate;
        CHECK(by_definition(q).indices.size() > 100);
        return q;
    }

    // The number of threads differs between successive calls and between callers.
    void check(int caller) const {
        int threads = 1 + caller;
        for (const Kernels* kernels : available_kernels()) {
            CHECK(singles.all(*kernels, 2 + threads++ % 3, kOtherPoison) == of_singles);
            CHECK(encode(*kernels, rates, false, 2 + threads++ % 3, kOtherPoison) == of_rates);
            CHECK(encode(*kernels, latencies, false, 2 + threads++ % 3, kOtherPoison) == of_latencies);
            CHECK(doubles.all(*kernels, 2 + threads++ % 3, kOtherPoison) == of_doubles);
            rows.check(2 + threads++ % 3);
            use_blocks(caller);
        }
    }
};

void callers_do_not_meet(const Work& work) {
    std::vector<std::thread> callers;
    for (int caller = 0; caller < kCallers; ++caller) callers.emplace_back([&work, caller] { work.check(caller); });
    for (std::thread& caller : callers) caller.join();
}

#if !defined(_WIN32)
// A forked child has only the thread that forked; its calls use the threads of a new pool.
void children_work(const Work& work) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(std::string(thread_runtime()) == "std");
        two_threads_meet();
        work.check(1);
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif

}  // namespace

int main(int count, char** arguments) {
    const bool openmp = count > 1 && std::string(arguments[1]) == "openmp";
#if defined(__linux__)
    CHECK(std::string(thread_runtime()) == "std");  // a call before a runtime is loaded
    if (openmp && !dlopen("libgomp.so.1", RTLD_NOW)) {
        std::printf("threads: skipped, there is no libgomp.so.1\n");
        return 0;
    }
    find_threads();
#endif
    CHECK(std::string(thread_runtime()) == (openmp ? "openmp" : "std"));
    two_threads_meet();
#if defined(__linux__)
    calls_start_no_more_threads();
#endif
    const Work work;
    callers_do_not_meet(work);
#if !defined(_WIN32)
    children_work(work);
#endif
    std::printf("threads: passed\n");
}
