// The readout of a network: its constants from the tensors of a file, its sums, and the part of them that a stream
// keeps.
#include "readout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "file_entries.h"

namespace srcell {

// The largest number of steps whose spikes a stream keeps, and of spikes that it keeps per sample.
constexpr double kMaxWindow = 1 << 20;
constexpr int64_t kMaxRecent = int64_t(1) << 28;

Readout Readout::of(const TensorFile& file, int64_t neurons, int64_t inputs) {
    Readout made;
    const std::string kind = text_of(file, "readout");
    made.neurons = neurons;
    if (kind == "none") return made;
    if (kind == "votes") {
        const std::vector<double> constants = numbers_of<double>(file, "readout.constants", {4});
        made.kind = kVotes;
        made.alpha = constants[1], made.inhibition = constants[2], made.temperature = constants[3];
        made.classes = whole(constants[0]) ? static_cast<int64_t>(constants[0]) : 0;
        if (made.classes < 1 || neurons % made.classes)
            throw FileError("readout.constants: expected a number of classes that divides the " +
                            std::to_string(neurons) + " neurons");
        if (!std::isfinite(made.inhibition) || !(made.temperature > 0))
            throw FileError("readout.constants: expected a finite inhibition and a temperature > 0");
    } else if (kind == "linear") {
        const std::vector<double> constants = numbers_of<double>(file, "readout.constants", {2});
        made.kind = kLinear;
        made.alpha = constants[0];
        if (!whole(constants[1]) || constants[1] > kMaxWindow)
            throw FileError("readout.constants: expected a whole number of steps as window, at most 1048576");
        made.window = static_cast<int64_t>(constants[1]);
        made.bias = numbers_of<float>(file, "readout.bias", {-1});
        made.classes = static_cast<int64_t>(made.bias.size());
        if (made.classes < 1) throw FileError("readout.bias: expected at least one class");
        if (made.window * neurons > kMaxRecent)
            throw FileError("readout.constants: expected a window of at most 2^28 / neurons steps");
        made.weight = numbers_of<float>(file, "readout.weight", {made.classes, neurons});
        if (file.tensors.count("readout.skip")) {
            made.inputs = inputs;
            made.skip = numbers_of<float>(file, "readout.skip", {made.classes, inputs});
        }
    } else {
        throw FileError("readout: expected none, votes or linear, got '" + shown(kind) + "'");
    }
    if (!(made.alpha >= 0 && made.alpha <= 1)) throw FileError("readout.constants: expected an alpha in [0, 1]");
    return made;
}

void Readout::pass(const Events<float>& events, int64_t row, double* to) const {
    std::fill(to, to + classes, 0.0);
    // Another thread may write there since the events were checked.
    const int64_t begin = std::max<int64_t>(read_once(events.offsets + row), 0);
    const int64_t end = std::min(read_once(events.offsets + row + 1), events.count);
    for (int64_t e = begin; e < end; ++e) {
        const int64_t k = read_once(events.indices + e);
        if (k < 0 || k >= inputs) continue;
        const double value = events.values ? static_cast<double>(events.values[e]) : 1.0;
        for (int64_t c = 0; c < classes; ++c) to[c] += static_cast<double>(skip.data()[c * inputs + k]) * value;
    }
}

void Readout::logits(const double* sums, const double* passed, float* to) const {
    double all = 0;
    if (kind == kVotes)
        for (int64_t n = 0; n < neurons; ++n) all += sums[n];
    for (int64_t c = 0; c < classes; ++c) {
        double own = 0;
        if (kind == kVotes) {
            for (int64_t n = c; n < neurons; n += classes) own += sums[n];
            to[c] = static_cast<float>(((1 - inhibition) * own + inhibition * all) / temperature);
        } else {
            const float* row = weight.data() + c * neurons;
            for (int64_t n = 0; n < neurons; ++n) own += static_cast<double>(row[n]) * sums[n];
            if (passed) own += passed[c];
            to[c] = static_cast<float>(own + static_cast<double>(bias[static_cast<size_t>(c)]));
        }
    }
}

void Readout::back(const double* of_logits, double* of_sums) const {
    double all = 0;
    for (int64_t c = 0; c < classes; ++c) all += of_logits[c];
    for (int64_t n = 0; n < neurons; ++n) {
        double sum = 0;
        if (kind == kVotes)
            sum = ((1 - inhibition) * of_logits[n % classes] + inhibition * all) / temperature;
        else
            for (int64_t c = 0; c < classes; ++c)
                sum += static_cast<double>(weight.data()[c * neurons + n]) * of_logits[c];
        of_sums[n] = sum;
    }
}

ReadoutState::ReadoutState(const Readout& readout, const Kernels& kernels, int64_t batch)
    : readout_(readout), kernels_(kernels), batch_(batch) {
    if (readout.kind == Readout::kNone) return;
    const int64_t plane = batch * readout.neurons;
    if (readout.window)
        recent_ = Aligned<float>(plane > INT64_MAX / readout.window ? -1 : readout.window * plane);
    else
        sums_ = Aligned<double>(plane);
    row_ = Aligned<double>(readout.neurons);
    if (readout.inputs) passed_ = Aligned<double>(batch * readout.classes), next_ = Aligned<double>(passed_.size());
}

void ReadoutState::pass(const Events<float>& events) {
    for (int64_t b = 0; passed_.size() && b < batch_; ++b)
        readout_.pass(events, b, next_.data() + b * readout_.classes);
}

void ReadoutState::add(const float* spikes) {
    std::swap(passed_, next_);
    const int64_t plane = batch_ * readout_.neurons;
    if (recent_.size())
        std::copy(spikes, spikes + plane, recent_.data() + steps_ % readout_.window * plane);
    else if (sums_.size())
        for (int64_t b = 0; b < batch_; ++b)
            readout_.add(kernels_, sums_.data() + b * readout_.neurons, spikes + b * readout_.neurons);
    ++steps_;
}

void ReadoutState::logits(float* to) const {
    const int64_t neurons = readout_.neurons, window = readout_.window;
    if (readout_.kind == Readout::kNone) return;
    const double* passed = passed_.size() ? passed_.data() : nullptr;
    for (int64_t b = 0; b < batch_; ++b, to += readout_.classes, passed += passed ? readout_.classes : 0) {
        if (!window) {
            readout_.logits(sums_.data() + b * neurons, passed, to);
            continue;
        }
        row_.clear();
        for (int64_t t = steps_ > window ? steps_ - window : 0; t < steps_; ++t)
            readout_.add(kernels_, row_.data(), recent_.data() + (t % window * batch_ + b) * neurons);
        readout_.logits(row_.data(), passed, to);
    }
}

void ReadoutState::reset() {
    steps_ = 0;
    if (sums_.size()) sums_.clear();
    if (recent_.size()) recent_.clear();
    if (passed_.size()) passed_.clear();
}

char* ReadoutState::save(char* to) const {
    const auto steps = static_cast<double>(steps_);  // exact for any number of steps that a stream can take
    const size_t sums = static_cast<size_t>(sums_.size()) * sizeof(double);
    const size_t recent = static_cast<size_t>(recent_.size()) * sizeof(float);
    const size_t passed = static_cast<size_t>(passed_.size()) * sizeof(double);
    std::memcpy(to, &steps, sizeof steps);
    if (sums) std::memcpy(to + sizeof steps, sums_.data(), sums);
    if (recent) std::memcpy(to + sizeof steps, recent_.data(), recent);
    if (passed) std::memcpy(to + sizeof steps + sums + recent, passed_.data(), passed);
    return to + bytes();
}

const char* ReadoutState::restore(const char* from) {
    double steps;
    std::memcpy(&steps, from, sizeof steps);
    steps_ = whole(steps) ? static_cast<int64_t>(steps) : 0;
    const char* const end = from + bytes();
    from += sizeof steps;  // then either the sums or the recent spikes, never both
    if (sums_.size()) std::memcpy(sums_.data(), from, static_cast<size_t>(sums_.size()) * sizeof(double));
    if (recent_.size()) std::memcpy(recent_.data(), from, static_cast<size_t>(recent_.size()) * sizeof(float));
    const size_t passed = static_cast<size_t>(passed_.size()) * sizeof(double);
    if (passed) std::memcpy(passed_.data(), end - passed, passed);
    return end;
}

}  // namespace srcell
