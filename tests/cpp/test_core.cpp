// The compiled core without Python, for the sanitizers: dispatch, threads, the memory cache, and the scan kernels of
// every ISA on small and awkward shapes against the scalar table.
#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>

#include "../../csrc/cpu/memory.h"
#include "../../csrc/cpu/parallel.h"
#include "../../csrc/platform/platform.h"
#include "cell_problem.h"

using namespace srcell;

namespace {

// Every table of this processor against the scalar one; returns a digest of all results, which is the same on every
// architecture.
template <class T>
uint64_t scans_agree(uint64_t number) {
    uint64_t digest = 14695981039346656037u;  // FNV-1a
    for (const int64_t steps : {0, 1, 15, 16, 17, 40})
        for (const int64_t batch : {0, 1, 3})
            for (const int64_t neurons : {0, 1, 7, 16, 31, 130})
                for (int repeat = 0; repeat < 4; ++repeat) {
                    Options bits(++number);
                    CellOptions o = {steps,       batch,       neurons,     bits.next(), bits.next(), bits.next(),
                                     bits.next(), bits.next(), bits.next(), bits.next(), {}};
                    const bool backward = bits.next() || bits.next(), lengths = bits.next();
                    if (lengths) o.lengths = clamped(wild_lengths(batch, steps), steps);
                    CellInputs<T> in(o);
                    Array<T> current = in.plane(steps);
                    for (T& c : current) c *= 2;
                    const Result<T> expected = scan(*kernels_scalar(), in, current, backward, 1, kPoison);
                    if (lengths) o.lengths = wild_lengths(batch, steps);
                    CellInputs<T> wild(o);
                    for_each_table([&](const Kernels& kernels, int threads) {
                        CHECK(scan(kernels, wild, current, backward, threads, kOtherPoison) == expected);
                    });
                    const auto* bytes = reinterpret_cast<const unsigned char*>(expected.all.data());
                    for (size_t k = 0; k < expected.all.size() * sizeof(T); ++k)
                        digest = (digest ^ bytes[k]) * 1099511628211u;
                }
    return digest;
}

// In float32 an integrator below 2^-100, and its gradient, are 0; float64 keeps them. NaN stays.
template <class T>
void tiny_integrators_are_flushed() {
    const T smallest = T(0x1p-100), below = std::nextafter(smallest, T(0)), nan = T(__builtin_nan(""));
    const std::vector<T> numbers = {smallest, -smallest, below, -below, nan, T(0x1p-110), T(0x1p-120), 1};
    std::vector<T> kept = numbers;
    if (sizeof(T) == sizeof(float)) kept = {smallest, -smallest, 0, 0, nan, 0, 0, 1};
    const CellOptions o = {1, 1, static_cast<int64_t>(numbers.size()), false, true, true, false, true, false, true, {}};
    CellInputs<T> in(o);
    in.parameters[kAlpha][0] = 1;
    in.i0 = Array<T>(numbers);
    in.grad_i = Array<T>(numbers);
    for (Array<T>* zeros : {&in.grad_h, &in.grad_hs}) std::fill(zeros->begin(), zeros->end(), T(0));
    Array<T> none(o.neurons);
    std::fill(none.begin(), none.end(), T(0));
    Result<T> expected;
    for (int k = 0; k < 3; ++k) expected.add(Array<T>(kept));
    for_each_table([&](const Kernels& kernels, int threads) {
        ScanCall<T> call(in, none, true, kPoison);
        call.run(kernels, threads);
        Result<T> got;
        for (const Array<T>* x : {&call.out.i, &call.out.grad_i0, &call.grad_current}) got.add(*x);
        CHECK(got == expected);
    });
}

void checkpoints_past_the_length_are_zero() {
    const CellOptions o = {40, 3, 50, true, true, true, true, true, true, true, {40, 17, 0}};
    CellInputs<float> in(o);
    const Array<float> current = in.plane(o.steps);
    for_each_table([&](const Kernels& kernels, int threads) {
        ScanCall<float> call(in, current, true, kOtherPoison);
        call.run(kernels, threads);
        check_padding(o, call.checkpoints, 3, kSegment);
    });
}

void relu_has_no_gradient_at_zero() {
    for_each_table([](const Kernels& kernels, int threads) { check_rest_at_zero(kernels, threads); });
}

void dispatch_chooses() {
    const std::vector<const Kernels*> available = available_kernels();
    CHECK(choose_kernels(available, nullptr) == available.back());
    CHECK(choose_kernels(available, "") == available.back());
    for (const Kernels* kernels : available) CHECK(choose_kernels(available, kernels->isa) == kernels);
    // With the scalar table alone, an ISA that is not available and an unknown name are refused.
    for (const char* wanted : {"avx512", "neon", "sse9"}) {
        bool refused = false;
        try {
            choose_kernels({kernels_scalar()}, wanted);
        } catch (const std::invalid_argument& error) {
            refused = std::string(error.what()).find(wanted) != std::string::npos;
        }
        CHECK(refused);
    }
}

void parallel_covers_each_item_once() {
    for (const int64_t items : {0, 1, 5, 1000})
        for (const int threads : {-1, 0, 1, 2, 7, 64}) {
            std::vector<int> seen(static_cast<size_t>(items));
            parallel_for(
                items, threads,
                [](void* context, int64_t begin, int64_t end) {
                    for (int64_t k = begin; k < end; ++k) ++static_cast<int*>(context)[k];
                },
                seen.data());
            for (const int count : seen) CHECK(count == 1);
        }
}

void lowest_is_kept() {
    std::atomic<int64_t> lowest{1000};
    parallel_for(
        1000, 4,
        [](void* context, int64_t begin, int64_t end) {
            for (int64_t k = begin; k < end; ++k) keep_lowest(*static_cast<std::atomic<int64_t>*>(context), 3 + k);
        },
        &lowest);
    CHECK(lowest == 3);
}

void memory_is_reused() {
    const size_t bytes = (size_t(5) << 20) + 123;
    char* block = static_cast<char*>(acquire_block(bytes));
    CHECK(block != nullptr);
    CHECK(reinterpret_cast<uintptr_t>(block) % kPage == 0);
    std::memset(block, 1, bytes);
    release_block(block, bytes);
    CHECK(cached_bytes() >= bytes);
    CHECK(acquire_block(bytes) == block);
    CHECK(cached_bytes() == 0);
    std::memset(block, 2, bytes);
    release_block(block, bytes);
}

// Releases more than kMaxHotBytes, then more than kMaxCachedBytes: the block released last comes back first, and every
// block can be written, whether or not it was marked with MADV_FREE in between.
void memory_keeps_its_bounds() {
    const size_t bytes = kMaxHotBytes * 2 / 5, blocks = kMaxCachedBytes / bytes + 2;
    for (int round = 0; round < 2; ++round) {
        std::vector<char*> held;
        for (size_t k = 0; k < blocks; ++k) {
            held.push_back(static_cast<char*>(acquire_block(bytes)));
            CHECK(held.back() != nullptr);
            for (const size_t at : {size_t(0), bytes / 2, bytes - 1}) held.back()[at] = static_cast<char>(k);
        }
        for (size_t k = 0; k < blocks; ++k)
            for (const size_t at : {size_t(0), bytes / 2, bytes - 1}) CHECK(held[k][at] == static_cast<char>(k));
        for (char* block : held) release_block(block, bytes);
        CHECK(cached_bytes() <= kMaxCachedBytes && cached_bytes() + 2 * bytes > kMaxCachedBytes);
        CHECK(acquire_block(bytes) == held.back());
        release_block(held.back(), bytes);
    }
    // A block larger than kMaxHotBytes is cached; one larger than kMaxCachedBytes goes back to the system.
    for (const size_t size : {kMaxHotBytes + 1, kMaxCachedBytes + 1}) {
        char* block = static_cast<char*>(acquire_block(size));
        CHECK(block != nullptr);
        block[size - 1] = 1;
        release_block(block, size);
        CHECK(cached_bytes() <= kMaxCachedBytes);
    }
    char* again = static_cast<char*>(acquire_block(kMaxHotBytes + 1));
    again[0] = again[kMaxHotBytes] = 1;
    release_block(again, kMaxHotBytes + 1);
}

void memory_is_shared_by_threads() {
    const auto work = [] {
        for (int k = 0; k < 200; ++k) {
            const size_t bytes = size_t(1 + k % 3) << 20;
            char* block = static_cast<char*>(acquire_block(bytes));
            CHECK(block != nullptr);
            block[0] = block[bytes - 1] = 1;
            release_block(block, bytes);
        }
    };
    std::vector<std::thread> threads;
    for (int k = 0; k < 3; ++k) threads.emplace_back(work);
    for (std::thread& thread : threads) thread.join();
}

// An entry that make_kernels() does not set would be null.
void tables_are_full() {
    for (const Kernels* table : available_kernels()) {
        constexpr size_t count = sizeof(Kernels) / sizeof(void*);
        const void* entries[count];
        std::memcpy(entries, table, sizeof entries);
        for (const void* entry : entries) CHECK(entry);
    }
}

// Empty arrays may have sizes near INT64_MAX: nothing may overflow, and no loop may run over them.
void empty_arrays_may_be_vast() {
    constexpr int64_t most = std::numeric_limits<int64_t>::max();
    CHECK(segments(most) == most / kSegment + 1);
    CHECK(event_tiles(most) == most / kTile + 1);
    CHECK(mask_words(most) == most / 64 + 1);
    const int64_t no_lengths = 0;
    for_each_table([&](const Kernels& kernels, int threads) {
        ScanForward<float> forward = {};
        forward.shape = {most, 0, most, &no_lengths, threads};
        kernels.f32.scan_forward(forward);
        ScanBackward<float> backward = {};
        backward.shape = forward.shape;
        kernels.f32.scan_backward(backward);

        int64_t offset = -1, partials[2 * 16], counts[2] = {-1, -1};
        const DenseInput<float> dense = {{0, most, 0, nullptr, threads}, most, nullptr, nullptr, &offset};
        CHECK(kernels.f32.mask_events(dense));
        CHECK(offset == 0);
        kernels.f32.list_events(dense, nullptr, nullptr);
        EventDots<float> dots = {};
        dots.shape = dense.shape;
        dots.events = {&offset, nullptr, nullptr, 0, most};
        CHECK(kernels.f32.event_dots(dots) == -1);
        kernels.f32.count_spikes({0, most, 1, threads, nullptr, partials, counts});
        CHECK(counts[0] == 0 && counts[1] == 0);
        kernels.f32.count_spikes({1, most, 0, threads, nullptr, nullptr, nullptr});
    });
}

}  // namespace

int main() {
    dispatch_chooses();
    tables_are_full();
    parallel_covers_each_item_once();
    lowest_is_kept();
    memory_is_reused();
    memory_keeps_its_bounds();
    memory_is_shared_by_threads();
    empty_arrays_may_be_vast();
    tiny_integrators_are_flushed<float>();
    tiny_integrators_are_flushed<double>();
    checkpoints_past_the_length_are_zero();
    relu_has_no_gradient_at_zero();
    CHECK(scans_agree<float>(0) == 0xADAC4BDC8FF10306u);
    CHECK(scans_agree<double>(1 << 20) == 0xBD5C3FC7F9A672D6u);
    std::printf("core: passed\n");
}
