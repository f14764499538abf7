// Fuzz target: the kernels of a dense input in every ISA.
#include "../cpp/dense_problem.h"

using namespace srcell;

namespace {

template <class T>
bool dense_inputs_agree(Input& in) {
    if (in.rarely(2)) {
        const int64_t steps = in.bit() ? 0 : in.vast(), batch = in.vast();
        empty_inputs_are_nothing<T>(steps, batch, steps ? 0 : in.below(100), steps ? 0 : in.vast());
        return false;
    }

    in.thread_counts();
    const int64_t steps = in.size(6), batch = in.size(3), inputs = in.size(in.rarely(32) ? 200 : 70);
    return dense_inputs_agree<T>(in, steps, batch, inputs);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("dense", data, size,
                [](Input& in) { return in.bit() ? dense_inputs_agree<double>(in) : dense_inputs_agree<float>(in); });
}
