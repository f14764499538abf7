// Reads delays from a file, and moves spikes along a delay line (delays.h).
#include "delays.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <tuple>
#include <utility>

#include "file_entries.h"

namespace srcell {

namespace {

// The most steps of a term: the largest delay and half-width. And the most terms of a layer.
constexpr int64_t kMostSteps = 2 * 65535, kMostTerms = INT32_MAX;

}  // namespace

StoredDelays StoredDelays::of(const TensorFile& file, const std::string& name, int64_t sources, int64_t taps) {
    StoredDelays made;
    const std::string of_first = name + ".first", of_factors = name + ".factors";
    if (!file.tensors.count(of_first)) return made;
    made.first = numbers_of<int32_t>(file, of_first, {sources, taps});
    const std::vector<int64_t>& shape = file.tensors.at(of_first).shape;
    if (made.first.empty()) throw FileError(of_first + ": expected at least one delay, got " + shape_text(shape));
    made.taps = shape[1], made.terms = 1;
    if (file.tensors.count(of_factors)) {
        made.factors = numbers_of<float>(file, of_factors, {shape[0], shape[1], -1});
        made.terms = file.tensors.at(of_factors).shape[2];
        if (made.terms < 1) throw FileError(of_factors + ": expected at least one factor for each delay, got none");
        for (const float factor : made.factors)
            if (!std::isfinite(factor)) throw FileError(of_factors + ": expected finite values");
    }
    const Delays<float> delays = made.view();
    if (delays.numbers > kMostTerms / made.terms)
        throw FileError(of_first + ": expected at most " + std::to_string(kMostTerms) + " terms, got " +
                        std::to_string(delays.numbers) + " times " + std::to_string(made.terms));
    for (int64_t number = 0; number < delays.numbers; ++number) {
        const int64_t first = made.first[static_cast<size_t>(number)], last = first + made.terms - 1;
        if (first < -kMostSteps || last > kMostSteps)
            throw FileError(of_first + ": expected delays of at most " + std::to_string(kMostSteps) + " steps, got " +
                            std::to_string(first < 0 ? first : last));
        for (int64_t term = 0; term < made.terms; ++term)
            made.longest = std::max(made.longest, delays.steps_of(number, term));
    }
    return made;
}

int64_t StoredDelays::room() const {
    return longest * (sources() + ceil_div(static_cast<int64_t>(first.size()) * terms, 32));
}

Delays<float> StoredDelays::view() const {
    return {static_cast<int64_t>(first.size()),         taps, terms, first.data(),
            factors.empty() ? nullptr : factors.data(), false};
}

DelayLine::DelayLine(const StoredDelays& delays, int64_t batch, Order order) {
    if (!delays) return;
    const Delays<float> view = delays.view();
    batch_ = batch, sources_ = delays.sources(), numbers_ = view.numbers, rows_ = delays.longest + 1;
    for (int64_t number = 0; number < view.numbers; ++number)
        for (int64_t term = 0; term < view.terms; ++term)
            if (const int64_t steps = view.steps_of(number, term); steps >= 0)
                terms_.push_back({number / view.taps, number, steps, view.factor(number, term)});
    std::sort(terms_.begin(), terms_.end(), [&](const Term& a, const Term& b) {
        return order == kByDeparture ? std::tuple(-a.steps, a.number) < std::tuple(-b.steps, b.number)
                                     : std::tuple(a.number, -a.steps) < std::tuple(b.number, -b.steps);
    });
    const auto count = static_cast<int64_t>(terms_.size());
    begin_.resize(static_cast<size_t>(sources_ + 1));
    for (const Term& term : terms_) ++begin_[static_cast<size_t>(term.source + 1)];
    for (size_t k = 1; k < begin_.size(); ++k) begin_[k] += begin_[k - 1];
    of_.resize(terms_.size());
    std::vector<int32_t> next = begin_;
    for (size_t n = 0; n < terms_.size(); ++n)
        of_[static_cast<size_t>(next[static_cast<size_t>(terms_[n].source)]++)] = static_cast<int32_t>(n);
    std::vector<int32_t> at_once(static_cast<size_t>(sources_));
    for (const Term& term : terms_) {
        at_once[static_cast<size_t>(term.source)] += term.steps == 0;
        later_terms_ += term.steps > 0;
    }
    if (later_terms_ < count) at_once_ = std::move(at_once);
    words_ = mask_words(count);
    const int64_t most = std::max({rows_ * sources_, rows_ * words_, count, int64_t(1)});
    if (batch > (int64_t(1) << 40) / most) throw std::bad_alloc();
    values_ = Aligned<float>(batch * rows_ * sources_);
    marks_ = Aligned<uint64_t>(batch * rows_ * words_);
    offsets_ = Aligned<int64_t>(batch + 1);
    indices_ = Aligned<int32_t>(batch * count);
    arrived_ = Aligned<float>(batch * count);
}

void DelayLine::mark(int64_t sample, int64_t source, int64_t age, int64_t least) {
    for (int32_t k = begin_[static_cast<size_t>(source)]; k < begin_[static_cast<size_t>(source + 1)]; ++k) {
        const int32_t n = of_[static_cast<size_t>(k)];
        const int64_t steps = terms_[static_cast<size_t>(n)].steps;
        if (steps >= least)
            marks_.data()[(sample * rows_ + row_after(steps - age)) * words_ + n / 64] |= uint64_t{1} << n % 64;
    }
}

void DelayLine::clear_sent(int64_t sample) {
    float* const row = &sent(sample, now_, 0);
    std::fill(row, row + sources_, 0.0f);
}

void DelayLine::keep_order(int64_t sample, const Events<float>& events) {
    if (const auto old = kept_.find(sample * rows_ + now_); old != kept_.end()) {
        kept_events_ -= static_cast<int64_t>(old->second.size());
        kept_.erase(old);
    }
    const EventRange range = events_of_row(events, sample);
    int64_t before = -1;
    bool ascend = true;
    for (int64_t e = range.begin; ascend && e < range.end; ++e) {
        const int64_t source = input_or_first(events.indices + e, sources_);
        ascend = source > before;
        before = source;
    }
    if (ascend) return;
    std::vector<Sent> kept;
    for (int64_t e = range.begin; e < range.end; ++e)
        kept.push_back({input_or_first(events.indices + e, sources_), events.values ? events.values[e] : 1});
    const auto count = static_cast<int64_t>(kept.size());
    kept_.emplace(sample * rows_ + now_, std::move(kept));
    kept_events_ += count;
}

void DelayLine::reserve(const Events<float>& events) {
    // An event of a row that repeats inputs arrives through each tap at most once at a step.
    int64_t most = batch_ * later_terms_ + kept_events_ * (numbers_ / sources_);
    for (int64_t e = 0; !at_once_.empty() && e < events.count; ++e)
        most += at_once_[static_cast<size_t>(input_or_first(events.indices + e, sources_))];
    if (most <= indices_.size()) return;
    Aligned<int32_t> indices(most);
    arrived_ = Aligned<float>(most);
    indices_ = std::move(indices);
}

void DelayLine::append(const Term& term, float value, int64_t& count) {
    if (count == indices_.size()) return;  // if another thread has changed the events
    indices_.data()[count] = static_cast<int32_t>(term.number);
    arrived_.data()[count++] = term.factor * value;
}

void DelayLine::append_terms(const Sent& event, int64_t steps, int64_t& count) {
    const auto source = static_cast<size_t>(event.source);
    for (int32_t k = begin_[source]; k < begin_[source + 1]; ++k)
        if (const Term& term = terms_[static_cast<size_t>(of_[static_cast<size_t>(k)])]; term.steps == steps)
            append(term, event.value, count);
}

void DelayLine::append_marked(int64_t sample, int64_t& count) {
    const uint64_t* const marks = marks_.data() + (sample * rows_ + now_) * words_;
    int64_t listed = -1;  // the steps whose departures have all been appended, in the order of their row
    for (int64_t word = 0; word < words_; ++word)
        for (uint64_t bits = marks[word]; bits; bits &= bits - 1) {
            const Term& term = terms_[static_cast<size_t>(word * 64 + __builtin_ctzll(bits))];
            if (term.steps == listed) continue;
            const int64_t row = row_before(term.steps);
            if (const auto kept = kept_.find(sample * rows_ + row); kept != kept_.end()) {
                for (const Sent& event : kept->second) append_terms(event, term.steps, count);
                listed = term.steps;
            } else if (const float value = sent(sample, row, term.source); value != 0) {
                append(term, value, count);
            }
        }
}

Events<float> DelayLine::listed(int64_t count) const {
    offsets_.data()[batch_] = count;
    return {offsets_.data(), indices_.data(), arrived_.data(), count, numbers_};
}

Events<float> DelayLine::pass(const Events<float>& events) {
    reserve(events);
    for (int64_t sample = 0; sample < batch_; ++sample) keep_order(sample, events);
    int64_t count = 0;
    for (int64_t sample = 0; sample < batch_; ++sample) {
        offsets_.data()[sample] = count;
        append_marked(sample, count);
        clear_sent(sample);
        const EventRange range = events_of_row(events, sample);
        for (int64_t e = range.begin; e < range.end; ++e) {
            const int64_t source = input_or_first(events.indices + e, sources_);
            const float value = events.values ? events.values[e] : 1;
            sent(sample, now_, source) += value;
            mark(sample, source, 0, 1);
            if (!at_once_.empty()) append_terms({source, value}, 0, count);
        }
    }
    return listed(count);
}

Events<float> DelayLine::pass_spikes(const float* h) {
    int64_t count = 0;
    for (int64_t sample = 0; sample < batch_; ++sample) {
        offsets_.data()[sample] = count;
        clear_sent(sample);
        for (int64_t source = 0; source < sources_; ++source) {
            const float spike = h[sample * sources_ + source];
            if (spike <= 0) continue;
            sent(sample, now_, source) = spike;
            mark(sample, source, 0, 0);
        }
        append_marked(sample, count);
    }
    return listed(count);
}

void DelayLine::advance() {
    if (!*this) return;
    for (int64_t sample = 0; sample < batch_; ++sample) {
        uint64_t* const marks = marks_.data() + (sample * rows_ + now_) * words_;
        std::fill(marks, marks + words_, uint64_t{0});
    }
    now_ = row_after(1);
}

void DelayLine::clear() {
    if (!*this) return;
    values_.clear();
    marks_.clear();
    kept_.clear();
    kept_events_ = 0;
    now_ = 0;
}

char* DelayLine::save(char* to) const {
    if (!*this) return to;
    const auto row_bytes = static_cast<size_t>(sources_) * sizeof(float);
    for (int64_t sample = 0; sample < batch_; ++sample)
        for (int64_t age = rows_ - 1; age > 0; --age, to += row_bytes)
            std::memcpy(to, &sent(sample, row_before(age), 0), row_bytes);
    return to;
}

const char* DelayLine::restore(const char* from) {
    if (!*this) return from;
    clear();
    const auto row_bytes = static_cast<size_t>(sources_) * sizeof(float);
    for (int64_t sample = 0; sample < batch_; ++sample)
        for (int64_t age = rows_ - 1; age > 0; --age, from += row_bytes) {
            std::memcpy(&sent(sample, row_before(age), 0), from, row_bytes);
            for (int64_t source = 0; source < sources_; ++source)
                if (sent(sample, row_before(age), source) != 0) mark(sample, source, age, age);
        }
    return from;
}

}  // namespace srcell
