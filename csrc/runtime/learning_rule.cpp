// Reads how a layer was trained (learning_rule.h).
#include "learning_rule.h"

#include <algorithm>
#include <limits>

#include "sequence.h"

namespace srcell {

namespace {

// Reads a number as Python writes it. The result may differ from the nearest double by a rounding error.
bool read_number(const std::string& text, double& value) {
    const bool negative = !text.empty() && text[0] == '-';
    size_t at = negative;
    int64_t digits = 0;
    int exponent = 0;
    const auto is_digit = [&] { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    // The digits from the 18th on only move the point.
    const auto read_digits = [&](bool behind_point) {
        const size_t first = at;
        for (; is_digit(); ++at)
            if (digits < int64_t(100000000000000000))
                digits = 10 * digits + (text[at] - '0'), exponent -= behind_point;
            else
                exponent += !behind_point;
        return at > first;
    };
    if (text.compare(at, std::string::npos, "Infinity") == 0) {
        value = negative ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
        return true;
    }
    if (!read_digits(false)) return false;
    if (at < text.size() && text[at] == '.') {
        ++at;
        if (!read_digits(true)) return false;
    }
    if (at < text.size() && text[at] == 'e') {
        ++at;
        const bool down = at < text.size() && text[at] == '-';
        at += at < text.size() && (text[at] == '-' || text[at] == '+');
        int power = 0;
        for (; is_digit() && power < 1000; ++at) power = 10 * power + (text[at] - '0');
        exponent += down ? -power : power;
    }
    value = negative ? -static_cast<double>(digits) : static_cast<double>(digits);
    double below = 1;
    for (; exponent > 0; --exponent) value *= 10;
    for (; exponent < 0; ++exponent) below *= 10;
    value /= below;
    return at == text.size();
}

}  // namespace

LearningRule LearningRule::of(const TensorFile& file, const std::string& name) {
    LearningRule made;
    const auto text = file.texts.find(name);
    if (text == file.texts.end()) return made;
    const auto refuse = [&](const std::string& key, const char* expected, const std::string& value) {
        throw FileError(name + ": expected " + key + " as " + expected + ", got '" + shown(value) + "'");
    };
    const auto choose = [&](const std::string& key, const std::string& value, const char* yes, const char* no) {
        if (value != yes && value != no) refuse(key, (std::string(yes) + " or " + no).c_str(), value);
        return value == yes;
    };
    for (const auto& [key, value] : leading_members(text->second)) {
        if (key == "surrogate") made.relu = choose(key, value, "relu", "straight_through");
        if (key == "recurrent_surrogate") made.lateral_relu = choose(key, value, "relu", "straight_through");
        if (key == "learn_bias") made.learn_bias = choose(key, value, "true", "false");
        if (key == "bias_max") {
            double bound = 0;
            if (!read_number(value, bound)) refuse(key, "a number", value);
            constexpr double largest = std::numeric_limits<float>::max();
            made.bias_max = bound > largest ? std::numeric_limits<float>::infinity()
                                            : static_cast<float>(std::max(bound, -largest));
        }
    }
    return made;
}

}  // namespace srcell
