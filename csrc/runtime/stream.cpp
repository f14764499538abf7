// A network that advances one step at a time: two states, before and after the step, that swap roles; and the readout's
// sums (network.h).
#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>

#include "../cpu/event_rows.h"
#include "../cpu/float_control.h"
#include "../domains.h"
#include "network.h"

namespace srcell {

namespace {

[[noreturn]] void refuse_events() {
    throw std::invalid_argument(
        "events: expected ascending offsets, and indices from 0 to the number of inputs less 1");
}

// Checks events before they are rewritten: by a delay line, or with a constant input.
void check_rows(const Events<float>& events, int64_t batch) {
    const FoundFault found = find_fault(
        {events.offsets, events.indices, nullptr, nullptr, nullptr, 1, batch, events.inputs, events.count, 1});
    if (found.fault != Fault::kNone) refuse_events();
}

void refuse_nan(const float* values, int64_t count) {
    for (int64_t n = 0; values && n < count; ++n)
        if (values[n] != values[n]) throw std::invalid_argument("values: expected no NaN");
}

}  // namespace

int64_t Stream::checked(const Network& network, int64_t batch) {
    if (batch < 1) throw std::invalid_argument("batch: expected at least 1, got " + std::to_string(batch));
    if (batch > (int64_t(1) << 40) / std::max(network.inputs(), network.widest())) throw std::bad_alloc();
    return batch;
}

Stream::Stream(const Network& network, int64_t batch)
    : network_(network), batch_(checked(network, batch)), read_(network.readout(), network.kernels(), batch) {
    for (const NetworkLayer& layer : network.layers()) {
        const int64_t plane = batch * layer.neurons;
        const int64_t state = layer.state_bytes(batch);
        Part part = {{Aligned<char>(state), Aligned<char>(state)},
                     {Aligned<float>(plane), Aligned<float>(plane)},
                     Aligned<char>(layer.memory_bytes(network.kernels())),
                     DelayLine(layer.delays, batch, DelayLine::kByDeparture),
                     DelayLine(layer.lateral_delays(), batch, DelayLine::kBySource),
                     {}};
        if (layer.constant) part.constant.reserve(batch, batch * layer.columns);
        parts_.push_back(std::move(part));
    }
    const int64_t most = std::max(network.inputs(), network.widest());
    rows_ = {Aligned<uint64_t>(batch * mask_words(most)), Aligned<int64_t>(batch + 1), Aligned<int32_t>(batch * most),
             Aligned<float>(batch * most)};
    if (network.cochlea()) hearing_.emplace(network.cochlea());
    if (network.standardisation()) standardised_.emplace(network.standardisation(), batch);
    if (network.holding().prefix) silence_ = Aligned<int64_t>(batch + 1);
    reset();
}

void Stream::reset() {
    for (size_t k = 0; k < parts_.size(); ++k) {
        network_.layers()[k].initial_state(batch_, parts_[k].state[now_].data());
        parts_[k].spikes[now_].clear();
        parts_[k].inputs.clear();
        parts_[k].own.clear();
    }
    read_.reset();
    if (hearing_) hearing_->reset();
    fed_ = false;
}

Events<float> Stream::rows_of(const float* elements, int64_t inputs) {
    const DenseInput<float> dense = {
        {1, batch_, nullptr, 1}, inputs, elements, rows_.mask.data(), rows_.offsets.data()};
    const KernelsOf<float>& kernels = network_.kernels().f32;
    float* const values = kernels.mask_events(dense) ? nullptr : rows_.values.data();
    kernels.list_events(dense, rows_.indices.data(), values);
    return {rows_.offsets.data(), rows_.indices.data(), values, rows_.offsets.data()[batch_], inputs};
}

void Stream::advance(Events<float> events) {
    const Readout& readout = network_.readout();
    if (parts_.front().inputs || network_.layers().front().constant || readout.inputs) check_rows(events, batch_);
    read_.pass(events);
    leave_out_ones(network_.layers().front(), events);
    const ScanShape shape = {1, batch_, 0, nullptr, 1};
    for (size_t k = 0; k < parts_.size(); ++k) {
        Part& part = parts_[k];
        const NetworkLayer& layer = network_.layers()[k];
        const char* const before = part.state[now_].data();
        Events<float> own = {};
        if (part.inputs) events = part.inputs.pass(events);
        if (layer.constant) events = part.constant.append(shape, events);
        if (part.own) own = part.own.pass_spikes(reinterpret_cast<const float*>(before) + batch_ * layer.neurons);
        const LayerInput input = {shape, events, part.own ? &own : nullptr, part.memory.data()};
        if (!layer.run(network_.kernels(), input, before, part.spikes[1 - now_].data(), part.state[1 - now_].data()))
            refuse_events();
        part.inputs.advance();
        part.own.advance();
        if (k + 1 < parts_.size()) events = rows_of(part.spikes[1 - now_].data(), layer.neurons);
    }
    now_ = 1 - now_;
    read_.add(parts_.back().spikes[now_].data());
}

void Stream::take(const Events<float>& events) {
    if (!standardised_) return advance(events);
    check_rows(events, batch_);
    advance(standardised_->of_events({1, batch_, nullptr, 1}, events));
}

void Stream::take_dense(const float* input) {
    if (standardised_) return advance(standardised_->of_dense(input));
    const Events<float> events = rows_of(input, network_.inputs());
    refuse_nan(events.values, events.count);
    advance(events);
}

void Stream::step(const int64_t* offsets, const int32_t* indices, const float* values, int64_t count) {
    const PlainArithmetic plain;
    if (count < 0) throw std::invalid_argument("offsets: expected at least 0");
    refuse_nan(values, count);
    take({offsets, indices, values, count, network_.inputs()});
}

void Stream::step_dense(const float* input) {
    const PlainArithmetic plain;
    take_dense(input);
}

int64_t Stream::feed(const float* values) {
    const PlainArithmetic plain;
    const Holding& holding = network_.holding();
    if (!holding.refusal.empty()) throw std::invalid_argument(holding.refusal);
    const int64_t count = batch_ * network_.inputs();
    refuse_nan(values, count);
    if (network_.layers().front().is_integer())
        for (int64_t k = 0; k < count; ++k)  // before the first of several steps
            if (values[k] != 0 && values[k] != 1)
                throw std::invalid_argument("values: expected 0 or 1 for integer neurons, got " + shortest(values[k]));
    int64_t steps = 0;
    for (; !fed_ && steps < holding.prefix; ++steps) take({silence_.data(), nullptr, nullptr, 0, network_.inputs()});
    fed_ = true;
    for (int64_t k = 0; k < holding.hold; ++k, ++steps) take_dense(values);
    return steps;
}

int64_t Stream::hear(const float* samples, int64_t count) {
    const PlainArithmetic plain;
    if (!hearing_) throw std::invalid_argument("network: expected one that was exported with a SoundEncoding");
    if (batch_ != 1) throw std::invalid_argument("batch: expected 1 to hear a sound, got " + std::to_string(batch_));
    if (const int64_t found = first_not_finite(samples, count); found >= 0)
        throw std::invalid_argument("samples: expected finite numbers, got another at " + std::to_string(found));
    Hearing& hearing = *hearing_;
    int64_t steps = 0;
    while (count > 0) {
        const int64_t taken = hearing.take(samples, count);
        samples += taken, count -= taken;
        for (int64_t k = 0; hearing.complete() && k < network_.cochlea().hold; ++k, ++steps) {
            const bool events = network_.cochlea().threshold > 0;
            const int64_t active = events && !k ? static_cast<int64_t>(hearing.active().size()) : 0;
            const int64_t offsets[] = {0, active};
            if (events)
                take({offsets, hearing.active().data(), nullptr, active, network_.inputs()});
            else
                take_dense(hearing.currents().data());
        }
    }
    return steps;
}

void Stream::values(size_t layer, float* to) const {
    network_.layers()[layer].values(parts_[layer].state[now_].data(), batch_, to);
}

void Stream::quadrature(size_t layer, float* to) const {
    const int64_t plane = batch_ * network_.layers()[layer].neurons;
    std::copy_n(reinterpret_cast<const float*>(parts_[layer].state[now_].data()) + 3 * plane, plane, to);
}

void Stream::logits(float* to) const {
    const PlainArithmetic plain;
    read_.logits(to);
}

namespace {

// The header of a saved state, with the version of its layout.
struct Mark {
    char name[7];
    char version;
    int64_t batch, bytes;
    uint64_t network;
};

constexpr char kName[] = {'s', 'r', 'c', 's', 't', 'a', 't'}, kVersion = '4';

}  // namespace

size_t Stream::state_bytes() const {
    size_t bytes = sizeof(Mark) + read_.bytes() + (hearing_ ? hearing_->bytes() : 0) + (silence_.size() ? 1 : 0);
    for (const Part& part : parts_)
        bytes += static_cast<size_t>(part.state[0].size()) + part.inputs.bytes() + part.own.bytes();
    return bytes;
}

void Stream::save(void* to) const {
    Mark mark = {{}, kVersion, batch_, static_cast<int64_t>(state_bytes()), network_.fingerprint()};
    std::memcpy(mark.name, kName, sizeof kName);
    char* at = static_cast<char*>(to);
    std::memcpy(at, &mark, sizeof mark);
    at += sizeof mark;
    for (const Part& part : parts_) {
        const auto bytes = static_cast<size_t>(part.state[now_].size());
        std::memcpy(at, part.state[now_].data(), bytes);
        at = part.own.save(part.inputs.save(at + bytes));
    }
    at = read_.save(at);
    if (hearing_) at = hearing_->save(at);
    if (silence_.size()) *at = fed_;
}

void Stream::restore(const void* from, size_t bytes) {
    Mark mark = {};
    const char* at = static_cast<const char*>(from);
    if (bytes >= sizeof mark) std::memcpy(&mark, at, sizeof mark);
    const bool named = std::memcmp(mark.name, kName, sizeof kName) == 0;
    if (named && mark.version != kVersion)
        throw std::invalid_argument(
            "state: expected one that this version of srcell saved, got one of another version");
    if (bytes != state_bytes() || !named || mark.batch != batch_ || mark.bytes != static_cast<int64_t>(bytes) ||
        mark.network != network_.fingerprint())
        throw std::invalid_argument("state: expected " + std::to_string(state_bytes()) +
                                    " bytes that a stream of this network and batch saved");
    at += sizeof mark;
    // The states of all layers are checked in the memory of the next step, before any is replaced.
    const char* next = at;
    for (size_t k = 0; k < parts_.size(); ++k) {
        const Part& part = parts_[k];
        const auto size = static_cast<size_t>(part.state[1 - now_].size());
        std::memcpy(part.state[1 - now_].data(), next, size);
        next += size + part.inputs.bytes() + part.own.bytes();
        const std::string fault = network_.layers()[k].fault_of(part.state[1 - now_].data(), batch_);
        if (!fault.empty()) throw std::invalid_argument("state: " + fault + " in layer " + std::to_string(k));
    }
    for (Part& part : parts_) {
        const auto size = static_cast<size_t>(part.state[now_].size());
        std::memcpy(part.state[now_].data(), part.state[1 - now_].data(), size);
        at = part.own.restore(part.inputs.restore(at + size));
    }
    at = read_.restore(at);
    if (hearing_) at = hearing_->restore(at);
    if (silence_.size()) fed_ = *at != 0;
}

}  // namespace srcell
