// The compiled core without Python, for the sanitizers: every kernel of every ISA on small and awkward shapes against
// the scalar table, with arrays of exactly the promised size; dispatch, threads and the memory cache.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../csrc/cpu/dispatch.h"
#include "../../csrc/cpu/memory.h"
#include "../../csrc/cpu/parallel.h"

using namespace srcell;

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                        \
        }                                                                        \
    } while (false)

namespace {

template <class T>
struct Problem {
    int64_t steps, batch, neurons, stride;
    bool relu, recurrent, parameters, saved_state;
    std::vector<int64_t> lengths;  // empty: none
};

// Numbers in [-1, 1) from integers alone.
template <class T>
std::vector<T> numbers(int64_t count, uint64_t seed) {
    std::vector<T> x(static_cast<size_t>(count));
    for (T& value : x) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        value = static_cast<T>(static_cast<int32_t>(seed >> 32)) * T(0x1p-31);
    }
    return x;
}

template <class T>
struct Result {
    std::vector<T> all;
    void add(const std::vector<T>& x) { all.insert(all.end(), x.begin(), x.end()); }
    // By bits: -0 is not 0 here, and NaN equals itself.
    bool operator==(const Result& other) const {
        return all.size() == other.all.size() &&
               (all.empty() || std::memcmp(all.data(), other.all.data(), all.size() * sizeof(T)) == 0);
    }
};

template <class T>
Result<T> run(const Kernels& kernels, const Problem<T>& q, int threads) {
    const int64_t plane = q.batch * q.neurons, all = q.steps * plane;
    std::vector<T> current = numbers<T>(all, 1);
    for (T& c : current) c *= 2;
    const std::vector<T> grad = numbers<T>(all, 2), bias = numbers<T>(q.neurons, 3);
    std::vector<T> low_bias = bias;
    for (T& b : low_bias) b -= 6;
    const T defaults[6] = {T(0.9), T(3), T(2), T(-7), T(0.9), T(0)};
    std::vector<std::vector<T>> values;
    for (const T value : defaults) values.emplace_back(q.stride ? q.neurons : 1, value);
    const std::vector<T> i0 = numbers<T>(plane, 4), h0 = numbers<T>(plane, 5), hs0 = numbers<T>(plane, 6);
    std::vector<T> spikes(all), i(plane), h(plane), hs(plane), checkpoints(segments(q.steps) * 3 * plane);
    const ScanShape shape = {q.steps, q.batch, q.neurons, q.lengths.empty() ? nullptr : q.lengths.data(), threads};
    const auto at = [&](size_t k) { return Parameter<T>{values[k].data(), q.stride}; };
    const CellParameters<T> cell = {{low_bias.data(), 1}, at(0), at(1), at(2), at(3), at(4), at(5)};
    const ScanForward<T> forward = {shape,
                                    cell,
                                    current.data(),
                                    q.saved_state ? i0.data() : nullptr,
                                    q.saved_state ? h0.data() : nullptr,
                                    q.saved_state ? hs0.data() : nullptr,
                                    spikes.data(),
                                    i.data(),
                                    h.data(),
                                    hs.data(),
                                    checkpoints.data()};
    std::vector<T> grad_current(all), grad_i0(plane), grad_h0(plane), grad_hs0(plane), grad_bias(q.neurons);
    std::vector<std::vector<T>> grad_cell(6, std::vector<T>(q.stride ? q.neurons : 1));
    std::vector<T> partials((q.parameters ? kSums : 1) * plane);
    ScanBackward<T> backward = {shape,
                                cell,
                                q.relu,
                                q.recurrent,
                                current.data(),
                                checkpoints.data(),
                                grad.data(),
                                q.saved_state ? i0.data() : nullptr,
                                q.saved_state ? h0.data() : nullptr,
                                q.saved_state ? hs0.data() : nullptr,
                                grad_current.data(),
                                grad_i0.data(),
                                grad_h0.data(),
                                grad_hs0.data(),
                                grad_bias.data(),
                                {},
                                partials.data()};
    if (q.parameters)
        for (size_t k = 0; k < 6; ++k) backward.grad_cell[k] = grad_cell[k].data();
    if constexpr (sizeof(T) == sizeof(float)) {
        kernels.scan_forward_f32(forward);
        kernels.scan_backward_f32(backward);
    } else {
        kernels.scan_forward_f64(forward);
        kernels.scan_backward_f64(backward);
    }
    Result<T> result;
    for (const auto* x : {&spikes, &i, &h, &hs, &grad_current, &grad_i0, &grad_h0, &grad_hs0, &grad_bias})
        result.add(*x);
    for (const auto& x : grad_cell) result.add(x);
    return result;
}

template <class T>
void tables_agree() {
    for (const int64_t steps : {0, 1, 15, 16, 17, 40})
        for (const int64_t batch : {0, 1, 3})
            for (const int64_t neurons : {0, 1, 7, 16, 31, 130})
                for (int bits = 0; bits < 32; ++bits) {
                    Problem<T> q = {steps,           batch,           neurons,         bits & 1, (bits & 2) != 0,
                                    (bits & 4) != 0, (bits & 8) != 0, (bits & 1) != 0, {}};
                    if (bits & 16)
                        for (int64_t b = 0; b < batch; ++b) q.lengths.push_back(b * 7 % (steps + 1));
                    const Result<T> expected = run(*kernels_scalar(), q, 1);
                    for (const Kernels* kernels : available_kernels())
                        for (const int threads : {1, 3}) CHECK(run(*kernels, q, threads) == expected);
                }
}

void dispatch_chooses() {
    const std::vector<const Kernels*> available = available_kernels();
    CHECK(choose_kernels(available, nullptr) == available.back());
    CHECK(choose_kernels(available, "") == available.back());
    for (const Kernels* kernels : available) CHECK(choose_kernels(available, kernels->isa) == kernels);
    // A processor that offers less refuses what it cannot run, and what nobody can.
    for (const char* wanted : {"avx512", "sse9"}) {
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
        for (const int threads : {0, 1, 2, 7, 64}) {
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

void memory_is_reused() {
    const size_t bytes = (size_t(5) << 20) + 123;
    char* block = static_cast<char*>(acquire_block(bytes));
    CHECK(block != nullptr);
    std::memset(block, 1, bytes);
    release_block(block, bytes);
    CHECK(cached_bytes() >= bytes);
    CHECK(acquire_block(bytes) == block);
    CHECK(cached_bytes() == 0);
    std::memset(block, 2, bytes);
    release_block(block, bytes);
}

}  // namespace

int main() {
    dispatch_chooses();
    parallel_covers_each_item_once();
    memory_is_reused();
    tables_agree<float>();
    tables_agree<double>();
    std::printf("C++ tests passed\n");
}
