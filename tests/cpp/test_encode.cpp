// The encoders of every ISA, for the sanitizers: sizes near a group of pixels and of steps, and pixels out of range.
#include "encode_problem.h"

using namespace srcell;

namespace {

void shapes_agree() {
    uint64_t number = 0;
    int rates = 0, thinned = 0, valid = 0;
    for (const int64_t samples : {0, 1, 3, 9})
        for (const int64_t pixels : {0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100})
            for (const int64_t steps : {0, 1, 7, 8, 9, 20})
                for (int repeat = 0; repeat < 3; ++repeat) {
                    Input in(++number);
                    const EncodeProblem q = encode_problem(in, samples, pixels, steps);
                    rates += q.rate;
                    thinned += q.thinned;
                    valid += encoders_agree(in, q);
                }
    CHECK(rates > 400 && thinned > 200 && valid > 700);
}

// The first sample with a pixel out of range is reported, on every ISA and with any number of threads.
void pixels_out_of_range_are_refused() {
    for (const float wrong : {-1e-30f, 1.0000001f, __builtin_nanf(""), __builtin_inff()})
        for_each_table([&](const Kernels& kernels, int threads) {
            Array<float> values(std::vector<float>(5 * 33, 0.5f));
            values[2 * 33 + 32] = values[4 * 33] = wrong;
            Array<int64_t> before(6);
            CHECK(kernels.count_active_pixels({values.data(), 5, 33, threads}, before.data()) == 2);
        });
}

}  // namespace

int main() {
    shapes_agree();
    for_each_table([](const Kernels& kernels, int threads) {
        check_thresholds([&](const EncodeProblem& q) { return encode(kernels, q, false, threads, kPoison); });
    });
    pixels_out_of_range_are_refused();
    std::printf("encode: passed\n");
}
