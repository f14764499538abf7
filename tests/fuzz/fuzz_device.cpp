// Fuzz target: the device code of the CUDA kernels, run on the host.
#include "../cpp/device_property.h"

using namespace srcell;

namespace {

template <class T>
bool passes_agree(Input& in) {
    const CellOptions o = cell_options(in);
    return passes_agree<T>(in, o, input_count(in, o), [&](EventRows<T>& rows) {
        const bool altered = in.rarely(64);
        if (altered) corrupt(in, rows);
        return altered;
    });
}

bool encoders_agree(Input& in) {
    const int64_t samples = in.size(3), pixels = in.size(140), steps = in.size(20), prefix = in.below(4);
    Numbers numbers(in.bytes(4));
    EncodeProblem q = {samples,
                       pixels,
                       steps,
                       prefix,
                       true,
                       0.6,
                       in.bytes(8),
                       Array<float>(samples * pixels),
                       Array<float>(0),
                       Array<int64_t>(samples)};
    if (in.rarely(96)) q.gain = in.real<double>();
    if (!std::isfinite(q.gain) || q.gain < 0) q.gain = 0.25;
    for (float& x : q.images)
        x = numbers.below(3) ? static_cast<float>(numbers.below(1 << 24)) * 0x1p-24f
                             : static_cast<float>(numbers.below(2));
    for (int64_t& i : q.index) i = in.integer<int64_t>(numbers.below(1 << 30));
    const std::vector<Card> all = cards(in);
    q.thinned = in.bit();
    for (const Card& card : all) CHECK(encode_on(card, q) == by_definition(q));
    return samples && pixels && steps;
}

bool device_agrees(Input& in) {
    switch (in.byte() % 9) {
        case 0:
            return scans_agree<float>(in, cell_options(in));
        case 1:
            return scans_agree<double>(in, cell_options(in));
        case 2:
            return half_scans_agree<device::Float16>(in, cell_options(in), Element::float16);
        case 3:
            return half_scans_agree<device::BFloat16>(in, cell_options(in), Element::bfloat16);
        case 4:
            return encoders_agree(in);
        case 5:
        case 6:
            return passes_agree<double>(in);
        default:
            return passes_agree<float>(in);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("device", data, size, device_agrees);
}
