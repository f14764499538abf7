// Reads how a network takes real-valued sequences, and standardises rows (sequence.h).
#include "sequence.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <stdexcept>
#include <utility>

#include "file_entries.h"

namespace srcell {

namespace {

constexpr int64_t kMostElements = int64_t(1) << 46;  // of a batch, far beyond any memory
constexpr int64_t kMostHeld = 1 << 20;               // steps

// The whole number in [least, kMostHeld] that a text spells, or -1.
int64_t steps_of(const std::string& text, int64_t least) {
    int64_t number = 0;
    if (text.empty() || text.size() > 7) return -1;
    for (const char c : text) {
        if (c < '0' || c > '9') return -1;
        number = 10 * number + (c - '0');
    }
    return number >= least && number <= kMostHeld ? number : -1;
}

}  // namespace

std::map<std::string, std::string> leading_members(const std::string& text) {
    std::map<std::string, std::string> found;
    size_t at = 0;
    const auto skip = [&] { at = std::min(text.find_first_not_of(" \t\r\n", at), text.size()); };
    const auto accept = [&](char c) {
        skip();
        const bool is = at < text.size() && text[at] == c;
        at += is;
        return is;
    };
    const auto until = [&](const char* ends) {
        const size_t from = std::exchange(at, std::min(text.find_first_of(ends, at), text.size()));
        return text.substr(from, at - from);
    };
    if (!accept('{')) return found;
    do {
        if (!accept('"')) return found;
        const std::string name = until("\"\\");
        if (!accept('"') || !accept(':')) return found;
        const bool quoted = accept('"');
        const std::string value = until(quoted ? "\"\\" : " \t\r\n,}[{\"");
        if (quoted ? !accept('"') : value.empty()) return found;
        found[name] = value;
    } while (accept(','));
    return found;
}

Standardisation Standardisation::of_file(const TensorFile& file, int64_t inputs) {
    Standardisation made;
    const std::string mean = "input.mean", deviation = "input.deviation";
    if (!file.tensors.count(mean) && !file.tensors.count(deviation)) return made;
    made.mean = numbers_of<float>(file, mean, {inputs});
    made.deviation = numbers_of<float>(file, deviation, {inputs});
    for (const float x : made.mean)
        if (!std::isfinite(x)) throw FileError(mean + ": expected finite values");
    for (const float x : made.deviation)
        if (!(std::isfinite(x) && x > 0)) throw FileError(deviation + ": expected finite values > 0");
    return made;
}

StandardisedRows::StandardisedRows(const Standardisation& of, int64_t rows) : of_(of) {
    if (rows >= kMostElements / of.inputs()) throw std::bad_alloc();
    const int64_t most = rows * of.inputs();
    offsets_ = Aligned<int64_t>(rows + 1);
    indices_ = Aligned<int32_t>(most), values_ = Aligned<float>(most);
    dense_ = Aligned<float>(of.inputs()), row_ = Aligned<float>(of.inputs());
}

Events<float> StandardisedRows::of_dense(const float* elements) {
    const int64_t rows = offsets_.size() - 1;
    for (int64_t row = 0; row < rows; ++row) list(elements + row * of_.inputs(), row);
    return listed(rows);
}

Events<float> StandardisedRows::of_events(const Samples& shape, const Events<float>& events) {
    const int64_t rows = shape.batch * shape.steps;
    for (int64_t row = 0; row < rows; ++row) {
        if (shape.lengths && row % shape.steps >= read_once(shape.lengths + row / shape.steps)) {
            offsets_.data()[row + 1] = offsets_.data()[row];
            continue;
        }
        dense_.clear();
        const EventRange range = events_of_row(events, row);
        for (int64_t n = range.begin; n < range.end; ++n) {
            const int64_t input = input_or_more(events.indices + n);
            if (input >= of_.inputs())
                throw std::invalid_argument("events: expected arrays that are not altered during a call");
            dense_.data()[input] += events.values ? events.values[n] : 1.0f;
        }
        list(dense_.data(), row);
    }
    return listed(rows);
}

void StandardisedRows::list(const float* elements, int64_t row) {
    const int64_t inputs = of_.inputs();
    const float *const mean = of_.mean.data(), *const deviation = of_.deviation.data();
    float* const made = row_.data();
    for (int64_t k = 0; k < inputs; ++k) made[k] = (elements[k] - mean[k]) / deviation[k];
    int64_t at = offsets_.data()[row];
    bool numbers = true;
    for (int64_t k = 0; k < inputs; ++k) {
        numbers &= made[k] == made[k];
        indices_.data()[at] = static_cast<int32_t>(k);
        values_.data()[at] = made[k];
        at += made[k] != 0;
    }
    if (!numbers) throw std::invalid_argument("values: expected no NaN");
    offsets_.data()[row + 1] = at;
}

Events<float> StandardisedRows::listed(int64_t rows) const {
    return {offsets_.data(), indices_.data(), values_.data(), offsets_.data()[rows], of_.inputs()};
}

Holding Holding::of_texts(const std::map<std::string, std::string>& texts) {
    Holding made;
    const auto encoder = texts.find("encoder");
    if (encoder == texts.end()) return made;
    auto settings = leading_members(encoder->second);
    if (settings["name"] != "HeldEncoding") {
        made.refusal = "encoder: expected a HeldEncoding, or none, got '" + shown(settings["name"]) + "'";
        return made;
    }
    made.hold = steps_of(settings["hold"], 1), made.prefix = steps_of(settings["prefix"], 0);
    if (made.hold < 0 || made.prefix < 0)
        made = {1, 0, "encoder: expected a HeldEncoding with hold in [1, 2^20] and prefix in [0, 2^20]"};
    return made;
}

}  // namespace srcell
