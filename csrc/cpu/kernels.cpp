// One part of an ISA's kernels: those on float32 (f32), those on float64 (f64), or all others (other). Compiled once
// for each row and part of the table in CMakeLists.txt, with the row's flags, SRCELL_ISA set to its name and
// SRCELL_PART to the part's; exports only kernels_<part>_<isa>(), so that the linker cannot use an inline function of
// one ISA for another.

#include "kernels.h"

#include <atomic>
#include <cstring>
#include <iterator>
#include <optional>
#include <type_traits>
#include <utility>

#include "../platform/aligned.h"
#include "parallel.h"

#if defined(SRCELL_ISA_avx2) || defined(SRCELL_ISA_avx512)
#include <immintrin.h>
#elif defined(SRCELL_ISA_neon)
#include <arm_neon.h>
#endif

#define SRCELL_INLINE inline __attribute__((always_inline))
#define SRCELL_JOIN(part, isa) kernels_##part##_##isa
#define SRCELL_TABLE(part, isa) SRCELL_JOIN(part, isa)
#define SRCELL_LAMBDA_INLINE __attribute__((always_inline))

namespace srcell {
namespace {

#include "vec_scalar-inl.h"

#include "vec_pair-inl.h"
#if defined(SRCELL_ISA_avx512)
#include "vec_avx512-inl.h"
using F32 = Pair<F32x16>;
#elif defined(SRCELL_ISA_avx2)
#include "vec_avx2-inl.h"
using F32 = Pair<F32x8>;
#elif defined(SRCELL_ISA_neon)
#include "vec_neon-inl.h"
using F32 = Pair<F32x4>;
#else
using F32 = float;
#endif
#include "../vmath-inl.h"

#include "../cell-inl.h"

#include "vec_short-inl.h"

#include "../integer-inl.h"

#include "../integer_surrogate-inl.h"

#include "../common-inl.h"

#include "tile-inl.h"

#include "scan-inl.h"

#include "encode_kernels-inl.h"

#include "camera-inl.h"

#include "learn-inl.h"

#include "dense-inl.h"

#include "events-inl.h"

#include "lateral_delays-inl.h"

#include "lateral-inl.h"

#include "integer-inl.h"

#include "product-inl.h"

#include "convolution-inl.h"

#include "count-inl.h"

template <class T>
SRCELL_INLINE T product(T a, T b) {
    return a * b;
}

template <class T>
SRCELL_INLINE T fused(T a, T b, T c) {
    return fma(a, b, c);
}

#include "../delay-inl.h"

#include "delay-inl.h"

template <class V, class Function>
SRCELL_INLINE void elementwise(const scalar_of<V>* x, scalar_of<V>* y, int64_t count, Function function) {
    for (int64_t k = 0; k < count; k += VecTraits<V>::width)
        store_lanes(y + k, function(load_lanes<V>(x + k, count - k)), count - k);
}

template <class V>
void tanh_array(const scalar_of<V>* x, scalar_of<V>* y, int64_t count) {
    elementwise<V>(x, y, count, [](V v) SRCELL_LAMBDA_INLINE { return tanh(v); });
}

template <class V>
void sigmoid_array(const scalar_of<V>* x, scalar_of<V>* y, int64_t count) {
    elementwise<V>(x, y, count, [](V v) SRCELL_LAMBDA_INLINE { return sigmoid(v); });
}

// V is the value type of the time loops, S a single register of it.
template <class V, class S>
constexpr KernelsOf<scalar_of<V>> make_kernels_of() {
    using T = scalar_of<V>;
    KernelsOf<T> made = {};
    made.scan_forward = scan_forward<V>;
    made.scan_backward = scan_backward<V>;
    made.events_forward = events_forward<V>;
    made.events_backward = events_backward<V>;
    made.event_dots = event_dots<S>;
    made.convolution_forward = convolution_forward<V>;
    made.convolution_backward = convolution_backward<V>;
    made.convolution_memory = convolution_memory<T>;
    made.lateral_forward = lateral_forward<V>;
    made.lateral_backward = lateral_backward<V>;
    made.lateral_forward_memory = lateral_forward_memory<V>;
    made.pack_weight = pack_weight<T>;
    made.pack_lateral = pack_lateral<T>;
    made.multiply = multiply<S>;
    made.mask_events = mask_events<S>;
    made.count_events = count_events<T>;
    made.list_events = list_events<T>;
    made.count_spikes = count_spikes<T>;
    made.make_turn = make_turn<T>;
    made.count_delayed = count_delayed<T>;
    made.write_delayed = write_delayed<T>;
    made.delayed_backward = delayed_backward<T>;
    made.delay_elements = delay_elements<T>;
    made.delay_elements_backward = delay_elements_backward<T>;
    made.tanh = tanh_array<V>;
    made.sigmoid = sigmoid_array<V>;
    return made;
}

#if defined(SRCELL_PART_f32)
constexpr KernelsOf<float> table = make_kernels_of<F32, single_of<F32>>();
#elif defined(SRCELL_PART_f64)
constexpr KernelsOf<double> table = make_kernels_of<double, double>();
#else
void leaky_sum(double* sums, const float* x, int64_t count, double alpha) {
    for (int64_t n = 0; n < count; ++n) sums[n] = alpha * sums[n] + static_cast<double>(x[n]);
}

void sine_cosine_array(const double* x, double* sine, double* cosine, int64_t count) {
    for (int64_t k = 0; k < count; ++k) {
        const SineCosine<double> made = sine_cosine(x[k]);
        sine[k] = made.sine, cosine[k] = made.cosine;
    }
}

constexpr OtherKernels make_others() {
    OtherKernels made = {};
    made.leaky_sum = leaky_sum;
    made.sine_cosine = sine_cosine_array;
    made.integer_forward = integer_forward;
    made.integer_backward = integer_backward;
    made.pack_integers = pack_integers;
    made.count_active_pixels = count_active_pixels;
    made.rate_draw = rate_draw;
    made.rate_write = rate_write;
    made.latency_encode = latency_encode;
    made.camera_frame_scratch = camera_frame_scratch;
    made.camera_picture_scratch = camera_picture_scratch;
    made.camera_draw_frames = camera_draw_frames;
    made.camera_draw_pictures = camera_draw_pictures;
    made.camera_write = camera_write;
    made.adam = adam;
    made.sum_of_squares = sum_of_squares;
    made.cross_entropy = cross_entropy;
    made.philox = philox_words;
    return made;
}

constexpr OtherKernels table = make_others();
#endif

}  // namespace

decltype(&table) SRCELL_TABLE(SRCELL_PART, SRCELL_ISA)() { return &table; }

}  // namespace srcell
