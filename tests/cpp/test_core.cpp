// The compiled core without Python, for the sanitizers: dispatch, threads, the memory cache, and the scan kernels of
// every ISA, compared with the scalar table of kernels on small and awkward shapes.
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "../../csrc/cpu/memory.h"
#include "../../csrc/cpu/parallel.h"
#include "../../csrc/platform/platform.h"
#include "scan_property.h"

using namespace srcell;

namespace {

// Small and awkward shapes with pseudo-random options. Returns a digest of all results, which is the same on every
// architecture.
template <class T>
uint64_t shapes_agree(uint64_t number, bool resonant) {
    uint64_t digest = 14695981039346656037u;  // FNV-1a
    for (const int64_t steps : {0, 1, 15, 16, 17, 40})
        for (const int64_t batch : {0, 1, 3})
            for (const int64_t neurons : {0, 1, 7, 16, 31, 130})
                for (int repeat = 0; repeat < 4; ++repeat) {
                    uint64_t bits = (++number * 0x9E3779B97F4A7C15u) >> 20;
                    const auto bit = [&] { return static_cast<bool>(std::exchange(bits, bits >> 1) & 1); };
                    CellOptions o = {steps, batch, neurons, bit(), bit(), bit(), bit(), bit(), bit(), bit(), {}};
                    const bool backward = bit() || bit();
                    const auto lengths = bit() ? wild_lengths(batch, steps) : std::vector<int64_t>();
                    o.lengths = clamped(lengths, steps);
                    o.resonant = resonant;
                    CellInputs<T> cell(o);
                    Array<T> current = cell.plane(steps);
                    for (T& c : current) c *= 2;
                    Input in(number);
                    const Result<T> result = scans_agree(in, cell, current, backward, lengths);
                    const auto* bytes = reinterpret_cast<const unsigned char*>(result.all.data());
                    for (size_t k = 0; k < result.all.size() * sizeof(T); ++k)
                        digest = (digest ^ bytes[k]) * 1099511628211u;
                }
    return digest;
}

// A bias beyond its bound gives the bits of one at the bound. Its gradient is 0 where a descent step would raise it:
// the gradient of the neuron, or of its channel, is then negative.
template <class T>
void biases_are_bounded(bool of_channels) {
    const CellOptions o = {20, 3, 12, true, false, true, true, true, true, true, {}};
    CellInputs<T> beyond(o), within(o);
    for (CellInputs<T>* in : {&beyond, &within}) in->bound_biases();
    if (!of_channels) beyond.bias_copies = 1;
    Array<T>& bias = within.parameters[kBias];
    bias[o.neurons - 1] = beyond.parameters[kBias][o.neurons - 1] = T(__builtin_nan(""));
    std::vector<bool> outside;
    for (T& x : bias) {
        outside.push_back(x > within.bias_max);
        if (outside.back()) x = within.bias_max;
    }
    const Array<T> current = beyond.plane(o.steps);
    for_each_table([&](const Kernels& kernels, int threads) {
        ScanCall<T> got(beyond, current, true, kPoison), expected(within, current, true, kPoison);
        got.run(kernels, threads), expected.run(kernels, threads);
        Array<T>&grad = got.out.grad_parameters[kBias], &plain = expected.out.grad_parameters[kBias];
        int64_t held = 0;
        for (int64_t n = 0; n < o.neurons; n += beyond.bias_copies) {
            T sum = 0;
            for (int64_t k = 0; k < beyond.bias_copies; ++k) sum += plain[n + k];
            const bool zero = outside[static_cast<size_t>(n)] && sum < 0;
            for (int64_t k = n; k < n + beyond.bias_copies && zero; ++k, ++held) plain[k] = 0;
        }
        CHECK(held > 0 && held < o.neurons);
        CHECK(same(grad, plain));
        Result<T> all, others;
        for (const auto& [call, result] : {std::pair(&got, &all), std::pair(&expected, &others)}) {
            call->out.add_forward(*result), call->out.add_backward(*result);
            result->add(call->grad_current), result->add(call->checkpoints);
        }
        CHECK(all == others);
    });
}

// In float32 both parts of an integrator below 2^-100, and their gradients, are 0; float64 keeps them. NaN stays NaN,
// in the spikes too.
template <class T>
void tiny_integrators_are_flushed(bool resonant) {
    const T smallest = T(0x1p-100), below = std::nextafter(smallest, T(0)), nan = T(__builtin_nan(""));
    const std::vector<T> numbers = {smallest, -smallest, below, -below, nan, T(0x1p-110), T(0x1p-120), 1};
    std::vector<T> kept = numbers;
    if (sizeof(T) == sizeof(float)) kept = {smallest, -smallest, 0, 0, nan, 0, 0, 1};
    CellOptions o = {1, 1, static_cast<int64_t>(numbers.size()), false, true, true, false, true, false, true, {}};
    o.resonant = resonant;
    CellInputs<T> in(o);
    in.parameters[kAlpha][0] = 1;
    if (resonant) in.parameters[kOmega][0] = 0, in.make_turn();
    for (Array<T>* x : {&in.i0, &in.q0, &in.grad_i, &in.grad_q})
        if (x->size()) *x = Array<T>(numbers);
    for (Array<T>* zeros : {&in.grad_h, &in.grad_hs}) std::fill(zeros->begin(), zeros->end(), T(0));
    Array<T> none(o.neurons);
    std::fill(none.begin(), none.end(), T(0));
    Result<T> expected;
    for (int k = 0; k < (resonant ? 5 : 3); ++k) expected.add(Array<T>(kept));
    for_each_table([&](const Kernels& kernels, int threads) {
        ScanCall<T> call(in, none, true, kPoison);
        call.run(kernels, threads);
        Result<T> got;
        for (const Array<T>* x : {&call.out.i, &call.out.grad_i0, &call.grad_current}) got.add(*x);
        if (resonant) got.add(call.out.q), got.add(call.out.grad_q0);
        CHECK(got == expected);
        CHECK(std::isnan(call.out.spikes[4]));
    });
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

// A released block is acquired again. Then releases more than kMaxHotBytes, then more than kMaxCachedBytes: the block
// released last is acquired first, and every block can be written, whether or not it was marked with MADV_FREE.
void memory_is_reused_within_its_bounds() {
    const size_t odd = (size_t(5) << 20) + 123;
    void* const first = acquire_block(odd);
    CHECK(first && reinterpret_cast<uintptr_t>(first) % kPage == 0);
    release_block(first, odd);
    CHECK(cached_bytes() >= odd);
    CHECK(acquire_block(odd) == first && cached_bytes() == 0);
    std::memset(first, 2, odd);
    release_block(first, odd);

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

        const int64_t offset = 0;
        EventDots<float> dots = {};
        dots.shape = {0, most, 0, nullptr, threads};
        dots.events = {&offset, nullptr, nullptr, 0, most};
        CHECK(kernels.f32.event_dots(dots) == -1);
    });
}

}  // namespace

int main() {
    dispatch_chooses();
    tables_are_full();
    parallel_covers_each_item_once();
    memory_is_reused_within_its_bounds();
    empty_arrays_may_be_vast();
    for (const bool resonant : {false, true}) {
        tiny_integrators_are_flushed<float>(resonant);
        tiny_integrators_are_flushed<double>(resonant);
    }
    for (const bool of_channels : {false, true}) {
        biases_are_bounded<float>(of_channels);
        biases_are_bounded<double>(of_channels);
    }
    for_each_table(check_rest_at_zero<Kernels>);
    CHECK(shapes_agree<float>(0, false) == 0xADAC4BDC8FF10306u);
    CHECK(shapes_agree<double>(1 << 20, false) == 0xBD5C3FC7F9A672D6u);
    CHECK(shapes_agree<float>(7, true) == 0x22FC610DB56081DBu);
    CHECK(shapes_agree<double>(1 << 20, true) == 0xD0810DF15E6E0BE2u);
    std::printf("core: passed\n");
}
