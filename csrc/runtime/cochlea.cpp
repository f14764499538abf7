// Reads a cochlea from a file, and hears (cochlea.h).
#include "cochlea.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "file_entries.h"

namespace srcell {

namespace {

constexpr int64_t kMostBands = 1 << 12, kMostSections = 16, kMostHop = 1 << 20, kMostHold = 1 << 10;
constexpr int64_t kConstants = 7;
// Outputs are bounded, so that a file whose filters are not stable gives no NaN.
constexpr double kMostCurrent = 1e6;
// A smaller state of a filter becomes 0: decaying on, it would be denormal, and arithmetic on it slow.
constexpr double kLeast = 0x1p-200;

}  // namespace

Cochlea Cochlea::of_file(const TensorFile& file) {
    Cochlea made;
    const std::string name = "sound.sections";
    if (!file.tensors.count(name)) return made;
    const auto sections = numbers_of<double>(file, name, {-1, -1, 5});
    const std::vector<int64_t>& shape = file.tensors.at(name).shape;
    made.bands = shape[0], made.sections = shape[1];
    if (made.bands < 1 || made.bands > kMostBands || made.sections < 1 || made.sections > kMostSections)
        throw FileError(name + ": expected from 1 to 4096 bands of 1 to 16 sections, got " + shape_text(shape));
    const auto constants = numbers_of<double>(file, "sound.constants", {kConstants});
    for (int k = 0; k < 2; ++k)
        if (!whole(constants[static_cast<size_t>(k)]))
            throw FileError("sound.constants: expected whole numbers of samples and steps for each frame");
    made.hop = static_cast<int64_t>(constants[0]), made.hold = static_cast<int64_t>(constants[1]);
    made.smooth = constants[2], made.pace = constants[3], made.share = constants[4], made.threshold = constants[5];
    if (constants[6] != 0) throw FileError("sound.constants: expected 0 at the end, in this version of srcell");
    made.offset = numbers_of<double>(file, "sound.offset", {made.bands});
    made.scale = numbers_of<double>(file, "sound.scale", {made.bands});
    made.of.resize(sections.size());
    for (int64_t n = 0; n < made.bands; ++n)
        for (int64_t k = 0; k < made.sections * 5; ++k)
            made.of[static_cast<size_t>(k * made.bands + n)] = sections[static_cast<size_t>(n * made.sections * 5 + k)];
    made.check();
    return made;
}

void Cochlea::check() const {
    const auto finite = [](double x) { return std::isfinite(x); };
    if (hop < 1 || hop > kMostHop || hold < 1 || hold > kMostHold)
        throw FileError("sound.constants: expected from 1 to 2^20 samples and from 1 to 1024 steps for each frame");
    for (const double x : {smooth, pace, share})
        if (!(x >= 0 && x <= 1)) throw FileError("sound.constants: expected shares in [0, 1]");
    if (!(threshold >= 0) || !finite(threshold))
        throw FileError("sound.constants: expected a finite threshold of at least 0");
    for (const auto* numbers : {&of, &offset, &scale})
        if (!std::all_of(numbers->begin(), numbers->end(), finite)) throw FileError("sound: expected finite numbers");
}

Hearing::Hearing(const Cochlea& cochlea)
    : cochlea_(cochlea),
      state_(static_cast<size_t>((2 * cochlea.sections + 3) * cochlea.bands + 1)),
      band_(static_cast<size_t>(cochlea.bands)) {
    currents_.resize(cochlea.threshold > 0 ? 0 : band_.size());
    active_.reserve(band_.size());
}

int64_t Hearing::take(const float* samples, int64_t count) {
    if (complete()) filled_ = 0;
    const int64_t bands = cochlea_.bands, taken = std::min(count, cochlea_.hop - filled_);
    double* const x = band_.data();
    double* const low = state_.data() + 2 * cochlea_.sections * bands;
    for (int64_t k = 0; k < taken; ++k) {
        std::fill_n(x, bands, static_cast<double>(samples[k]));
        for (int64_t section = 0; section < cochlea_.sections; ++section) {
            const double* const c = cochlea_.of.data() + section * 5 * bands;
            double* const first = state_.data() + 2 * section * bands;
            double* const second = first + bands;
            for (int64_t n = 0; n < bands; ++n) {
                const double in = x[n], out = c[n] * in + first[n];
                first[n] = c[bands + n] * in - c[3 * bands + n] * out + second[n];
                second[n] = c[2 * bands + n] * in - c[4 * bands + n] * out;
                x[n] = out;
            }
        }
        for (int64_t n = 0; n < bands; ++n) low[n] += cochlea_.smooth * ((x[n] > 0 ? x[n] : 0) - low[n]);
    }
    filled_ += taken;
    if (complete()) finish();
    return taken;
}

void Hearing::finish() {
    const int64_t bands = cochlea_.bands;
    double* const low = state_.data() + 2 * cochlea_.sections * bands;
    double *const mean = low + bands, *const level = mean + bands;
    for (double* at = state_.data(); at < mean; ++at) *at = std::fabs(*at) < kLeast ? 0 : *at;
    active_.clear();
    for (int64_t n = 0; n < bands; ++n) {
        const double y = std::sqrt(std::sqrt(low[n]));
        mean[n] += cochlea_.pace * (y - mean[n]);
        const double offset = cochlea_.threshold > 0 ? 0 : cochlea_.offset[static_cast<size_t>(n)];
        const double raw = (y - cochlea_.share * mean[n] - offset) * cochlea_.scale[static_cast<size_t>(n)];
        const double z = raw > kMostCurrent ? kMostCurrent : raw > -kMostCurrent ? raw : -kMostCurrent;
        if (cochlea_.threshold <= 0) {
            currents_[static_cast<size_t>(n)] = static_cast<float>(z);
        } else if (z >= level[n] + cochlea_.threshold) {
            level[n] += cochlea_.threshold;
            active_.push_back(static_cast<int32_t>(2 * n));
        } else if (z <= level[n] - cochlea_.threshold) {
            level[n] -= cochlea_.threshold;
            active_.push_back(static_cast<int32_t>(2 * n + 1));
        }
    }
}

void Hearing::reset() {
    std::fill(state_.begin(), state_.end(), 0.0);
    filled_ = 0;
}

char* Hearing::save(char* to) const {
    std::memcpy(to, state_.data(), bytes());
    const auto filled = static_cast<double>(complete() ? 0 : filled_);
    std::memcpy(to + bytes() - sizeof filled, &filled, sizeof filled);
    return to + bytes();
}

const char* Hearing::restore(const char* from) {
    std::memcpy(state_.data(), from, bytes());
    filled_ = whole(state_.back()) ? static_cast<int64_t>(state_.back()) : 0;
    filled_ = std::min(filled_, cochlea_.hop - 1);
    return from + bytes();
}

int64_t first_not_finite(const float* samples, int64_t count) {
    for (int64_t k = 0; k < count; ++k)
        if (!std::isfinite(samples[k])) return k;
    return -1;
}

}  // namespace srcell
