// One ISA's kernels. Compiled once per row of the table in CMakeLists.txt, with that row's flags and SRCELL_ISA set to
// its name; exports kernels_<isa>() and nothing else, so that no inline function compiled for one ISA can serve
// another.

#include "kernels.h"

#include <atomic>
#include <cstring>

#include "parallel.h"

#if defined(SRCELL_ISA_avx2) || defined(SRCELL_ISA_avx512)
#include <immintrin.h>
#elif defined(SRCELL_ISA_neon)
#include <arm_neon.h>
#endif

#define SRCELL_INLINE inline __attribute__((always_inline))
#define SRCELL_STRINGIFY(x) #x
#define SRCELL_NAME(x) SRCELL_STRINGIFY(x)
#define SRCELL_JOIN(a, b) a##b
#define SRCELL_TABLE(isa) SRCELL_JOIN(kernels_, isa)
#define SRCELL_LAMBDA_INLINE __attribute__((always_inline))

namespace srcell {
namespace {

#include "vec_scalar.h"

#include "vec_pair.h"
#if defined(SRCELL_ISA_avx512)
#include "vec_avx512.h"
using F32 = Pair<F32x16>;
#elif defined(SRCELL_ISA_avx2)
#include "vec_avx2.h"
using F32 = Pair<F32x8>;
#elif defined(SRCELL_ISA_neon)
#include "vec_neon.h"
using F32 = Pair<F32x4>;
#else
using F32 = float;
#endif
#include "../vmath.h"

#include "../cell.h"

#include "tile.h"

#include "scan.h"

#include "encode_kernels.h"

#include "dense.h"

#include "events.h"

#include "product.h"

#include "count.h"

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

constexpr Kernels table = {
    SRCELL_NAME(SRCELL_ISA),
    scan_forward<F32>,
    scan_forward<double>,
    scan_backward<F32>,
    scan_backward<double>,
    events_forward<F32>,
    events_forward<double>,
    events_backward<F32>,
    events_backward<double>,
    event_dots<single_of<F32>>,
    event_dots<double>,
    multiply<single_of<F32>>,
    multiply<double>,
    mask_events<single_of<F32>>,
    mask_events<double>,
    count_events<float>,
    list_events<float>,
    list_events<double>,
    count_spikes<float>,
    count_spikes<double>,
    tanh_array<F32>,
    tanh_array<double>,
    sigmoid_array<F32>,
    sigmoid_array<double>,
    count_active_pixels,
    rate_draw,
    rate_write,
    latency_encode,
    philox_words,
};

}  // namespace

const Kernels* SRCELL_TABLE(SRCELL_ISA)() { return &table; }

}  // namespace srcell
