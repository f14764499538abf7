// Fuzz target: the encoders of every ISA against their definition, on images some of which have invalid pixels.
#include "../cpp/encode_problem.h"

using namespace srcell;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("encode", data, size, [](Input& in) {
        in.thread_counts();
        const int64_t samples = in.size(4), pixels = in.size(in.rarely(32) ? 150 : 40), steps = in.size(24);
        const EncodeProblem q = encode_problem(in, samples, pixels, steps);
        return encoders_agree(in, q) && q.images.size() && q.steps;
    });
}
