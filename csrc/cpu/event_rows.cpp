// find_fault() and count_nonzero() of event_rows.h. Almost every batch is valid, so a range is first tested as a whole,
// in branch-free loops that the compiler vectorises with the baseline instruction set, and searched for the fault only
// if the test fails.
#include "event_rows.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <type_traits>

#include "../params.h"
#include "parallel.h"

namespace srcell {
namespace {

constexpr int64_t kNowhere = std::numeric_limits<int64_t>::max();

// Elements per piece of work: about 4 us of reading, enough to be worth waking a thread.
constexpr int64_t kGrain = 1 << 15;

// Whether some value is not in [0, last]; last >= -1. A value is outside if `value` or `last - value` has its sign bit
// set: the difference wraps only if the value is negative, and then the value's own sign bit is set.
template <class T>
bool any_outside(const T* values, int64_t count, T last) {
    using Bits = std::make_unsigned_t<T>;
    Bits signs = 0;
    for (int64_t k = 0; k < count; ++k) {
        const auto value = static_cast<Bits>(values[k]);
        signs |= value | (static_cast<Bits>(last) - value);
    }
    return signs >> (std::numeric_limits<Bits>::digits - 1);
}

// Whether some offset is below the one before it, given that the batch's first offset is not negative. Negative offsets
// count as well: the first of them is below the offset before it. Without negative offsets no difference wraps.
bool any_descent(const int64_t* offsets, int64_t rows) {
    uint64_t signs = 0;
    for (int64_t k = 0; k < rows; ++k) {
        const auto end = static_cast<uint64_t>(offsets[k + 1]);
        signs |= end | (end - static_cast<uint64_t>(offsets[k]));
    }
    return signs >> 63;
}

template <class T>
using BitsOf = std::conditional_t<sizeof(T) == sizeof(uint32_t), uint32_t, uint64_t>;

template <class T>
BitsOf<T> bits_of(T value) {
    static_assert(std::numeric_limits<T>::is_iec559);
    BitsOf<T> bits;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
}

// A NaN's bits without the sign, read as an integer, are greater than those of infinity. We compare integers because
// compilers do not vectorise comparisons of doubles for SSE2.
template <class T>
bool any_nan(const T* values, int64_t count) {
    using Bits = BitsOf<T>;
    const Bits magnitude = std::numeric_limits<Bits>::max() >> 1;
    const Bits infinity = bits_of(std::numeric_limits<T>::infinity());
    Bits signs = 0;
    for (int64_t k = 0; k < count; ++k) signs |= infinity - (bits_of(values[k]) & magnitude);
    return signs >> (std::numeric_limits<Bits>::digits - 1);
}

// Returns the first position of a wrong value, or kNowhere: another thread may have changed the fault that the test
// found.
template <class T, class Wrong>
int64_t first_where(const T* values, int64_t begin, int64_t end, Wrong wrong) {
    const int64_t found = std::find_if(values + begin, values + end, wrong) - values;
    return found < end ? found : kNowhere;
}

template <class T>
int64_t first_outside(const T* values, int64_t begin, int64_t end, T last) {
    if (begin >= end || !any_outside(values + begin, end - begin, last)) return kNowhere;
    return first_where(values, begin, end, [=](T value) { return value < 0 || value > last; });
}

int64_t first_descent(const int64_t* offsets, int64_t begin, int64_t end) {
    if (begin >= end || !any_descent(offsets + begin, end - begin)) return kNowhere;
    for (int64_t row = begin; row < end; ++row)
        if (offsets[row + 1] < offsets[row]) return row + 1;
    return kNowhere;
}

template <class T>
int64_t first_nan(const T* values, int64_t begin, int64_t end) {
    if (!values || begin >= end || !any_nan(values + begin, end - begin)) return kNowhere;
    return first_where(values, begin, end, [](T value) { return value != value; });
}

// Splits offsets, indices and values each into `pieces` parts; piece k checks the k-th part of each.
struct Pass {
    const UncheckedEvents& p;
    int64_t rows, pieces;
    std::atomic<int64_t> descent{kNowhere}, index{kNowhere}, nan{kNowhere};

    static void run(void* self, int64_t begin, int64_t end) {
        Pass& pass = *static_cast<Pass*>(self);
        const UncheckedEvents& p = pass.p;
        const int64_t row_part = ceil_div(pass.rows, pass.pieces);
        keep_lowest(pass.descent, first_descent(p.offsets, begin * row_part, std::min(end * row_part, pass.rows)));
        const int64_t event_part = ceil_div(p.events, pass.pieces);
        const int64_t first = begin * event_part, last = std::min(end * event_part, p.events);
        keep_lowest(pass.index, first_outside(p.indices, first, last, static_cast<int32_t>(p.inputs - 1)));
        keep_lowest(pass.nan, std::min(first_nan(p.values_f32, first, last), first_nan(p.values_f64, first, last)));
    }
};

int64_t first_past_length(const UncheckedEvents& p) {
    if (!p.lengths) return kNowhere;
    for (int64_t b = 0; b < p.batch; ++b) {
        const int64_t length = clamp_to(read_once(p.lengths + b), 0, p.steps);
        if (p.offsets[b * p.steps + length] < p.offsets[(b + 1) * p.steps]) return b;
    }
    return kNowhere;
}

template <class T>
int64_t count_of(const T* elements, int64_t rows, int64_t inputs, int64_t stride) {
    int64_t count = 0;
    for (int64_t row = 0; row < rows; row += stride)
        for (int64_t k = 0; k < inputs; ++k) count += elements[row * inputs + k] != 0;
    return count;
}

}  // namespace

int64_t count_nonzero(const float* elements, int64_t rows, int64_t inputs, int64_t stride) {
    return count_of(elements, rows, inputs, stride);
}

int64_t count_nonzero(const double* elements, int64_t rows, int64_t inputs, int64_t stride) {
    return count_of(elements, rows, inputs, stride);
}

FoundFault find_fault(const UncheckedEvents& p) {
    const int64_t wrong_length = p.lengths ? first_outside(p.lengths, 0, p.batch, p.steps) : kNowhere;
    if (wrong_length != kNowhere) return {Fault::kLength, wrong_length};
    const int64_t rows = p.batch * p.steps;
    if (p.offsets[0] != 0) return {Fault::kFirstOffset, 0};
    Pass pass{p, rows, 1 + std::max(rows, p.events) / kGrain};
    parallel_for(pass.pieces, p.threads, Pass::run, &pass);
    if (pass.descent != kNowhere) return {Fault::kDescent, pass.descent};
    if (p.offsets[rows] != p.events) return {Fault::kLastOffset, rows};
    if (pass.index != kNowhere) return {Fault::kIndex, pass.index};
    if (pass.nan != kNowhere) return {Fault::kNan, pass.nan};
    const int64_t past = first_past_length(p);
    if (past != kNowhere) return {Fault::kPastLength, past};
    return {Fault::kNone, 0};
}

}  // namespace srcell
