// Runs the kernels of the rate encoder over images, with its own scratch.
#include "encoding.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>

#include "../cpu/dispatch.h"
#include "../cpu/encode.h"
#include "aligned_array.h"
#include "network.h"

namespace srcell {

int64_t encode_rate(const RateSettings& settings, int64_t batch, int64_t pixels, const float* images,
                    const int64_t* index, int64_t* offsets, int32_t* indices, int64_t room) {
    constexpr int64_t kMost = int64_t(1) << 31;
    if (settings.steps < 0 || settings.steps >= kMost || settings.prefix < 0 || settings.prefix >= kMost)
        throw std::invalid_argument("settings: expected steps and prefix in [0, 2^31)");
    if (!(settings.gain >= 0 && std::isfinite(settings.gain)))
        throw std::invalid_argument("settings: expected a gain that is finite and at least 0");
    const int64_t rows = count_rows(settings.prefix + settings.steps, batch);
    if (pixels < 1 || pixels > kMost) throw std::invalid_argument("inputs: expected from 1 to 2^31");
    const Kernels& kernels = *preferred_kernels();
    const Images view = {images, batch, pixels, 1};
    // The offsets are computed in our own memory, where no other thread writes, because rate_write() relies on them.
    Aligned<int64_t> active_before(batch + 1), numbers(index ? 0 : batch), made(rows + 1);
    const int64_t invalid = kernels.count_active_pixels(view, active_before.data());
    if (invalid >= 0)
        throw std::invalid_argument("images: expected pixels in [0, 1], got others in sample " +
                                    std::to_string(invalid));
    if (!index) std::iota(numbers.data(), numbers.data() + batch, int64_t(0));
    const int64_t groups = first_group(active_before.data(), batch);
    const int64_t drawn = ceil_div(settings.steps, kDrawnSteps) * kDrawnSteps;
    Aligned<int32_t> active(groups * kPixelGroup);
    Aligned<uint32_t> thresholds(groups * kPixelGroup);
    Aligned<uint16_t> fired(groups * drawn);
    const RateEncoding encoding = {view,           active_before.data(), index ? index : numbers.data(),
                                   settings.steps, settings.prefix,      settings.gain,
                                   settings.seed,  active.data(),        thresholds.data(),
                                   fired.data(),   made.data(),          settings.thinned};
    kernels.rate_draw(encoding);
    const int64_t events = made.data()[rows];
    std::copy(made.data(), made.data() + rows + 1, offsets);
    if (events <= room) kernels.rate_write(encoding, indices);
    return events;
}

}  // namespace srcell
