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
    int exponent = 0, found = 0;
    if (text.compare(at, std::string::npos, "Infinity") == 0) {
        value = negative ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
        return true;
    }
    const auto read_digits = [&](int64_t& to, int most) {
        int count = 0;
        for (; at < text.size() && text[at] >= '0' && text[at] <= '9' && count < most; ++at, ++count)
            to = 10 * to + (text[at] - '0');
        return count;
    };
    found = read_digits(digits, 17);
    if (at < text.size() && text[at] == '.') {
        ++at;
        exponent = -read_digits(digits, 17 - found);
        found -= exponent;
    }
    if (found && at < text.size() && text[at] == 'e') {
        int64_t power = 0;
        const bool down = ++at < text.size() && text[at] == '-';
        at += at < text.size() && (text[at] == '-' || text[at] == '+');
        if (!read_digits(power, 3)) return false;
        exponent += static_cast<int>(down ? -power : power);
    }
    value = static_cast<double>(digits);
    for (; exponent > 0; --exponent) value *= 10;
    double below = 1;
    for (; exponent < 0; ++exponent) below *= 10;
    value = (negative ? -value : value) / below;
    return found && at == text.size();
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
        if (key == "autapses") made.autapses = choose(key, value, "true", "false");
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
