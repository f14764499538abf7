// Forward, loss, backward and Adam of a learner (learner.h).
#include "learner.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "../cpu/float_control.h"
#include "../cpu/traced_backward.h"
#include "../domains.h"

namespace srcell {

namespace {

constexpr double kMeanBeta = 0.9, kVarianceBeta = 0.999, kEpsilon = 1e-8;
constexpr double kMostRate = 1000;  // so that no weight can leave the range of float32
constexpr int64_t kMostClasses = 1 << 16;
constexpr size_t kMostNames = size_t(1) << 19;  // bytes, so that the header of the file has room for them
constexpr double kMostNorm = 1e18;              // of a gradient whose squares are float32

[[noreturn]] void refuse(const std::string& name, const std::string& expected) {
    throw std::invalid_argument(name + ": expected " + expected);
}

// A file's texts and tensors with a readout for other classes, whose numbers are `zeros`.
Network with_classes(const Network& network, const LearningSettings& settings) {
    const Readout& readout = network.readout();
    if (readout.kind != Readout::kLinear) refuse("classes", "a network with a linear readout, got one without");
    if (settings.classes < 1 || settings.classes > kMostClasses)
        refuse("classes", "from 1 to 65536, got " + std::to_string(settings.classes));
    if (!settings.class_names.empty() && static_cast<int64_t>(settings.class_names.size()) != settings.classes)
        refuse("classes", "a name for each of " + std::to_string(settings.classes) + " classes, got " +
                              std::to_string(settings.class_names.size()));
    std::string names = "[";
    for (const std::string& name : settings.class_names) names += (names.size() > 1 ? "," : "") + quoted(name);
    names += ']';
    if (const size_t bytes = quoted(names).size(); bytes > kMostNames)
        refuse("classes", "names of at most 524288 bytes as JSON, got " + std::to_string(bytes));
    const std::vector<float> zeros(static_cast<size_t>(settings.classes * readout.neurons));
    TensorFile file = network.file();
    file.tensors["readout.weight"] = {
        "F32", {settings.classes, readout.neurons}, zeros.data(), settings.classes * readout.neurons};
    file.tensors["readout.bias"] = {"F32", {settings.classes}, zeros.data(), settings.classes};
    file.tensors.erase("readout.skip");
    file.texts.erase("classes");
    if (!settings.class_names.empty()) file.texts["classes"] = names;
    return Network(TensorFile::parse(file.written()));
}

}  // namespace

struct Learner::Call {
    explicit Call(const Learner& of) : learner(of) {
#if !defined(__wasm__)  // where destructors do not run after an error, and there is one thread
        if (learner.busy_.exchange(true)) refuse("learner", "one call at a time, got one of a second thread");
#endif
    }
    ~Call() { learner.busy_ = false; }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    const Learner& learner;
    PlainArithmetic plain;
};

Learner::Learner(const Network& network, const LearningSettings& settings)
    : network_(settings.classes || !settings.class_names.empty() ? with_classes(network, settings)
                                                                 : Network(network.file())),
      settings_(settings) {
    if (!(settings.rate > 0 && settings.rate <= kMostRate))
        refuse("learning_rate", "a number in (0, 1000], got " + shortest(settings.rate));
    if (!(settings.clip_norm >= 0) || !std::isfinite(settings.clip_norm))
        refuse("clip_norm", "a finite number >= 0, got " + shortest(settings.clip_norm));
    const Readout& readout = network_.readout();
    if (readout.kind == Readout::kNone) refuse("network", "one with a readout, got one without");
    if (readout.inputs) refuse("network", "one without a skip connection, which does not learn here, got one with");
    if (settings.readout_alone && readout.kind != Readout::kLinear)
        refuse("layers", "\"all\" for a readout that counts votes, because it has no weights");
    for (size_t k = 0; k < network_.layers().size() && !settings.readout_alone; ++k) {
        const NetworkLayer& layer = network_.layers()[k];
        const std::string prefix = "layers." + std::to_string(k) + ".";
        if (layer.is_integer() || layer.convolution())
            refuse("layers",
                   std::string("\"readout\", because the neurons of layer ") + std::to_string(k) +
                       (layer.is_integer() ? " are integers" : " form a map, whose weights do not learn here"));
        LayerPart part;
        part.weight = add_part(prefix + "weight");
        if (layer.lateral()) {
            part.lateral = add_part(prefix + "lateral");
            part.autapses = false;
            const auto* const lateral = static_cast<const char*>(network_.file().tensors.at(prefix + "lateral").bytes);
            for (int64_t n = 0; n < layer.neurons; ++n) {
                float own;
                std::memcpy(&own, lateral + 4 * n * (layer.neurons + 1), 4);
                part.autapses |= own != 0;
            }
        }
        if (layer.rule.learn_bias) {
            part.bias = add_part(prefix + "bias");
            part.bound = std::get<FloatNeurons>(layer.kind).parameters[kBias];
            for (float& bound : part.bound) bound = std::max(bound, layer.rule.bias_max);
        }
        if (layer.constant) part.joined.resize(static_cast<size_t>(layer.neurons * layer.columns));
        layers_.push_back(std::move(part));
    }
    if (readout.kind == Readout::kLinear) readout_ = add_part("readout.weight"), add_part("readout.bias");
    const int64_t count = parts_.back().first + parts_.back().count;
    for (Aligned<float>* numbers : {&numbers_, &acting_, &gradient_, &mean_, &variance_})
        *numbers = Aligned<float>(count);
    const auto& tensors = network_.file().tensors;
    for (const Part& part : parts_)
        std::memcpy(numbers_.data() + part.first, tensors.at(part.name).bytes, static_cast<size_t>(part.count) * 4);
    for (size_t k = 0; k < layers_.size(); ++k) {
        const NetworkLayer& layer = network_.layers()[k];
        if (!layer.constant) continue;
        const auto* const constant =
            static_cast<const unsigned char*>(tensors.at("layers." + std::to_string(k) + ".constant").bytes);
        for (int64_t n = 0; n < layer.neurons; ++n)
            std::memcpy(layers_[k].joined.data() + (n + 1) * layer.columns - 1, constant + 4 * n, 4);
    }
    act();
}

int64_t Learner::scratch_bytes() const {
    const Call call(*this);
    return pieces_.bytes();
}

int64_t Learner::add_part(const std::string& name) {
    const StoredTensor& tensor = network_.file().tensors.at(name);
    const int64_t first = parts_.empty() ? 0 : parts_.back().first + parts_.back().count;
    parts_.push_back({name, tensor.shape, first, tensor.count});
    return first;
}

void Learner::check(const NetworkInput& input, const LearningTargets& targets) const {
    if (input.batch < 1) refuse("batch", "at least 1 sample, got " + std::to_string(input.batch));
    if (input.steps < 1) refuse("steps", "at least 1, got " + std::to_string(input.steps));
    const int64_t rows = count_rows(input.steps, input.batch), classes = network_.readout().classes;
    check_events(input);
    if (!targets.labels == !targets.values) refuse("targets", "either labels or values");
    for (int64_t row = 0; row < (targets.every_step ? rows : input.batch); ++row) {
        const int64_t b = targets.every_step ? row / input.steps : row, t = targets.every_step ? row % input.steps : 0;
        if (targets.every_step && input.lengths && t >= read_once(input.lengths + b)) continue;
        if (targets.labels) {
            const int64_t label = read_once(targets.labels + row);
            if (label < 0 || label >= classes)
                refuse("targets", "labels in [0, " + std::to_string(classes) + "), got " + std::to_string(label));
            continue;
        }
        for (int64_t c = 0; c < classes; ++c) {
            const float value = read_once(targets.values + row * classes + c);
            if (!std::isfinite(value)) refuse("targets", "finite values, got " + shortest(value));
        }
    }
}

// A copy of events that lasts until the next call.
Events<float> Learner::kept(const Events<float>& events, int64_t rows) {
    auto* const offsets = pieces_.take<int64_t>(rows + 1);
    auto* const indices = pieces_.take<int32_t>(events.count);
    auto* const values = pieces_.take<float>(events.count);
    std::copy_n(events.offsets, rows + 1, offsets);
    std::copy_n(events.indices, events.count, indices);
    if (events.values) std::copy_n(events.values, events.count, values);
    return {offsets, indices, events.values ? values : nullptr, events.count, events.inputs};
}

void Learner::forward(const NetworkInput& input, int threads, std::vector<Passed>& passed) {
    const Kernels& kernels = network_.kernels();
    const int64_t steps = input.steps, batch = input.batch;
    const ScanShape shape = {steps, batch, 0, input.lengths, threads};
    Events<float> events = input.events;
    if (network_.standardisation()) {
        StandardisedRows rows(network_.standardisation(), steps * batch);
        events = kept(rows.of_events(shape, events), steps * batch);
    }
    for (size_t k = 0; k < network_.layers().size(); ++k) {
        const NetworkLayer& layer = network_.layers()[k];
        const int64_t plane = batch * layer.neurons, state = layer.state_bytes(batch);
        leave_out_ones(layer, events);
        if (layer.delays) events = kept(DelayedInput(kernels, shape, events, layer.delays).events(), steps * batch);
        auto* const states = pieces_.take<char>(2 * state);
        layer.initial_state(batch, states);
        Passed made = {events, pieces_.take<float>(steps * plane), nullptr, nullptr,
                       reinterpret_cast<const float*>(states)};
        if (!settings_.readout_alone) {
            made.trace = pieces_.take<float>(steps * plane);
            made.checkpoints = pieces_.take<float>(segments(steps, kEventSegment) * (layer.states() - 1) * plane);
        }
        WithConstant constant;
        const Events<float> given = layer.constant ? constant.append(shape, events) : events;
        if (!layer.run(kernels, {shape, given, nullptr, nullptr, made.trace, made.checkpoints}, states, made.spikes,
                       states + state))
            check_events(input), refuse("events", "arrays that are not altered during a call");
        passed.push_back(made);
        if (k + 1 == network_.layers().size()) break;
        const DenseInput<float> dense = {shape, layer.neurons, made.spikes,
                                         pieces_.take<uint64_t>(steps * batch * mask_words(layer.neurons)),
                                         pieces_.take<int64_t>(steps * batch + 1)};
        auto* const indices = pieces_.take<int32_t>(steps * plane);
        auto* const values = pieces_.take<float>(steps * plane);
        const bool ones = kernels.f32.mask_events(dense);
        kernels.f32.list_events(dense, indices, ones ? nullptr : values);
        events = {dense.offsets, indices, ones ? nullptr : values, dense.offsets[steps * batch], layer.neurons};
    }
}

// One answer: writes the logits and their gradient, adds its part of the gradient of a linear readout's numbers, and
// returns its part of the loss. `row` is that of the targets.
double Learner::answer(const LearningTargets& targets, const double* sums, int64_t row, double weight, float* logits,
                       double* grad_logits, double* grad_weight, double* grad_bias) {
    const Readout& readout = network_.readout();
    const int64_t classes = readout.classes, neurons = readout.neurons;
    readout.logits(sums, nullptr, logits);
    double loss = 0;
    if (targets.labels) {
        const int64_t label = clamp_to(read_once(targets.labels + row), 0, classes - 1);
        loss = network_.kernels().cross_entropy(logits, classes, label, grad_logits);
        for (int64_t c = 0; c < classes; ++c) grad_logits[c] *= weight;
    } else {
        for (int64_t c = 0; c < classes; ++c) {
            const double away = static_cast<double>(logits[c]) - static_cast<double>(targets.values[row * classes + c]);
            loss += away * away;
            grad_logits[c] = 2 * weight * away;
        }
    }
    for (int64_t c = 0; readout_ >= 0 && c < classes; ++c) {
        grad_bias[c] += grad_logits[c];
        for (int64_t n = 0; n < neurons; ++n) grad_weight[c * neurons + n] += grad_logits[c] * sums[n];
    }
    return weight * loss;
}

double Learner::read(const NetworkInput& input, const LearningTargets& targets, const float* spikes,
                     float* grad_spikes) {
    const Readout& readout = network_.readout();
    const Kernels& kernels = network_.kernels();
    const int64_t steps = input.steps, batch = input.batch, neurons = readout.neurons, classes = readout.classes;
    const int64_t window = readout.window, plane = batch * neurons, count = readout_ < 0 ? 0 : classes * neurons;
    const bool every = targets.every_step;
    auto* const sums = pieces_.take<double>(neurons);
    auto* const carry = pieces_.take<double>(neurons);
    auto* const back = pieces_.take<double>((every ? steps : 1) * neurons);  // gradients of the sums of each answer
    auto* const logits = pieces_.take<float>(classes);
    auto* const grad_logits = pieces_.take<double>(classes);
    auto* const grad_weight = pieces_.take<double>(count + classes);
    std::fill_n(grad_weight, count + classes, 0.0);
    const auto length_of = [&](int64_t b) {
        return input.lengths ? clamp_to(read_once(input.lengths + b), 0, steps) : steps;
    };
    int64_t answers = 0;
    for (int64_t b = 0; b < batch; ++b) answers += every ? length_of(b) : 1;
    const double weight = answers ? 1.0 / static_cast<double>(targets.labels ? answers : answers * classes) : 0.0;
    double loss = 0;
    for (int64_t b = 0; b < batch; ++b) {
        const int64_t length = length_of(b);
        const auto row = [&](int64_t t) { return spikes + t * plane + b * neurons; };
        const auto take_answer = [&](int64_t t) {
            loss += answer(targets, sums, every ? b * steps + t : b, weight, logits, grad_logits, grad_weight,
                           grad_weight + count);
            if (grad_spikes) readout.back(grad_logits, back + (every ? t * neurons : 0));
        };
        std::fill_n(sums, neurons, 0.0);
        for (int64_t t = every || !window ? 0 : std::max<int64_t>(length - window, 0); t < length; ++t) {
            const int64_t first = every && window ? std::max<int64_t>(t + 1 - window, 0) : t;
            if (every && window) std::fill_n(sums, neurons, 0.0);
            for (int64_t u = first; u <= t; ++u) readout.add(kernels, sums, row(u));
            if (every) take_answer(t);
        }
        if (!every) take_answer(0);
        if (!grad_spikes) continue;
        std::fill_n(carry, neurons, 0.0);
        for (int64_t t = steps - 1; t >= 0; --t) {
            float* const to = grad_spikes + t * plane + b * neurons;
            // The sum, over the answers to which the spikes of step t count, of alpha^distance times their gradient.
            const int64_t last = every && window ? std::min(t + window, length) - 1 : t;
            if (every && window) std::fill_n(carry, neurons, 0.0);
            for (int64_t u = last; u >= t && u < length; --u) {
                const double* const of_answer = every ? back + u * neurons : u == length - 1 ? back : nullptr;
                for (int64_t n = 0; n < neurons; ++n)
                    carry[n] = readout.alpha * carry[n] + (of_answer ? of_answer[n] : 0.0);
            }
            const bool counts = t < length && (every || !window || t >= length - window);
            for (int64_t n = 0; n < neurons; ++n) to[n] = counts ? static_cast<float>(carry[n]) : 0.0f;
        }
    }
    if (readout_ >= 0)
        for (int64_t k = 0; k < count + classes; ++k)
            gradient_.data()[readout_ + k] = static_cast<float>(grad_weight[k]);
    return loss;
}

// The gradient of the spikes of the layer below, (T, B, K), from that of the currents of a layer, (T, B, N).
const float* Learner::through_weights(const ScanShape& shape, size_t k, const float* grad_current) {
    const NetworkLayer& layer = network_.layers()[k];
    const Kernels& kernels = network_.kernels();
    const int64_t rows = shape.steps * shape.batch, numbers = layer.inputs * layer.delays.taps;
    auto* const product = pieces_.take<float>(rows * numbers);
    kernels.f32.multiply({rows, numbers, layer.neurons, shape.threads, layer.neurons, grad_current,
                          acting_.data() + layers_[k].weight,
                          pieces_.take<float>(layer.neurons * (numbers + kProductPadding)), product});
    if (!layer.delays) return product;
    auto* const of_inputs = pieces_.take<float>(rows * layer.inputs);
    kernels.f32.delay_elements_backward(
        {{shape, 0, layer.inputs, layer.delays.view(), nullptr}, product, of_inputs, nullptr, nullptr});
    return of_inputs;
}

void Learner::backward(const ScanShape& of_batch, const std::vector<Passed>& passed, float* of_last) {
    const Kernels& kernels = network_.kernels();
    const float* grad_spikes = of_last;
    for (size_t k = network_.layers().size(); k-- > 0;) {
        const NetworkLayer& layer = network_.layers()[k];
        const auto& neurons = std::get<FloatNeurons>(layer.kind);
        const LayerPart& part = layers_[k];
        const int64_t plane = of_batch.batch * layer.neurons;
        LateralBackward<float> p = {};
        p.shape = of_batch, p.shape.neurons = layer.neurons;
        p.cell = neurons.cell, p.turn = neurons.turn.view();
        p.relu = layer.rule.relu;
        p.grad_spikes = grad_spikes;
        for (int64_t state = 0; state < layer.states(); ++state) p.grad_before.of[state] = pieces_.take<float>(plane);
        p.grad_parameters[kBias] = part.bias < 0 ? pieces_.take<float>(layer.neurons) : gradient_.data() + part.bias;
        p.trace = passed[k].trace, p.checkpoints = passed[k].checkpoints, p.i0 = passed[k].before;
        p.grad_current = k ? pieces_.take<float>(of_batch.steps * plane) : nullptr;
        p.synapse = {passed[k].events, gradient_.data() + part.weight, nullptr};
        if (part.lateral >= 0) {
            p.lateral = {acting_.data() + part.lateral, nullptr, layer.rule.lateral_relu, false};
            p.grad_lateral = gradient_.data() + part.lateral;
            if (neurons.delays) p.delays = {{neurons.delays.view(), neurons.delays.longest}};
        }
        const size_t used = pieces_.used();  // the scratch of all layers is the same
        const int64_t returned = run_backward(kernels, p, pieces_);
        if (returned == kOutOfMemory) throw std::bad_alloc();
        if (returned >= 0) refuse("events", "arrays that are not altered during a call");
        pieces_.give_back(used);
        hold(k);
        if (k) grad_spikes = through_weights(p.shape, k, p.grad_current);
    }
}

// No bias rises above its bound, and a diagonal of 0 stays.
void Learner::hold(size_t k) {
    const NetworkLayer& layer = network_.layers()[k];
    const LayerPart& part = layers_[k];
    for (size_t n = 0; n < part.bound.size(); ++n) {
        float& gradient = gradient_.data()[part.bias + static_cast<int64_t>(n)];
        if (numbers_.data()[part.bias + static_cast<int64_t>(n)] > part.bound[n] && gradient < 0) gradient = 0;
    }
    for (int64_t n = 0; part.lateral >= 0 && !part.autapses && n < layer.neurons; ++n)
        gradient_.data()[part.lateral + n * (layer.neurons + 1)] = 0;
}

// Lets the network compute with what was learnt.
void Learner::act() {
    std::copy_n(numbers_.data(), numbers_.size(), acting_.data());
    for (size_t k = 0; k < layers_.size(); ++k) {
        NetworkLayer& layer = network_.layers_[k];
        LayerPart& part = layers_[k];
        for (size_t n = 0; n < part.bound.size(); ++n) {
            float& bias = acting_.data()[part.bias + static_cast<int64_t>(n)];
            bias = std::min(bias, part.bound[n]);
            std::get<FloatNeurons>(layer.kind).parameters[kBias][n] = bias;
        }
        const float* weight = acting_.data() + part.weight;
        for (int64_t n = 0; layer.constant && n < layer.neurons; ++n)
            std::copy_n(weight + n * (layer.columns - 1), layer.columns - 1, part.joined.data() + n * layer.columns);
        layer.pack(network_.kernels(), layer.constant ? part.joined.data() : weight,
                   part.lateral < 0 ? nullptr : acting_.data() + part.lateral);
    }
    if (readout_ < 0) return;
    Readout& readout = network_.readout_;
    std::copy_n(acting_.data() + readout_, readout.weight.size(), readout.weight.begin());
    std::copy_n(acting_.data() + parts_.back().first, readout.bias.size(), readout.bias.begin());
}

double Learner::compute(const NetworkInput& input, const LearningTargets& targets, int threads) {
    check(input, targets);
    threads = std::clamp(threads, 1, kMaxThreads);
    pieces_.give_back(0);
    std::vector<Passed> passed;
    forward(input, threads, passed);
    float* const grad_spikes =
        settings_.readout_alone ? nullptr : pieces_.take<float>(input.steps * input.batch * network_.outputs());
    const double loss = read(input, targets, passed.back().spikes, grad_spikes);
    if (!std::isfinite(loss)) refuse("loss", "a finite number, got another: what was learnt is as before");
    if (grad_spikes) backward({input.steps, input.batch, 0, input.lengths, threads}, passed, grad_spikes);
    return loss;
}

double Learner::gradient(const NetworkInput& input, const LearningTargets& targets, int threads, float* to) {
    const Call call(*this);
    const double loss = compute(input, targets, threads);
    std::copy_n(gradient_.data(), gradient_.size(), to);
    return loss;
}

double Learner::step(const NetworkInput& input, const LearningTargets& targets, int threads) {
    const Call call(*this);
    const double loss = compute(input, targets, threads);
    const double norm = std::sqrt(network_.kernels().sum_of_squares(gradient_.data(), gradient_.size()));
    if (!(norm < kMostNorm)) refuse("gradient", "a norm below 1e18, got more: what was learnt is as before");
    const double clip = settings_.clip_norm;
    steps_ += 1, mean_power_ *= kMeanBeta, variance_power_ *= kVarianceBeta;
    network_.kernels().adam(
        {gradient_.size(), gradient_.data(), static_cast<float>(clip > 0 && norm > clip ? clip / norm : 1.0),
         numbers_.data(), mean_.data(), variance_.data(), static_cast<float>(kMeanBeta),
         static_cast<float>(kVarianceBeta), static_cast<float>(1 - kMeanBeta), static_cast<float>(1 - kVarianceBeta),
         static_cast<float>(settings_.rate / (1 - mean_power_)), static_cast<float>(1 / std::sqrt(1 - variance_power_)),
         static_cast<float>(kEpsilon)});
    act();
    return loss;
}

std::vector<unsigned char> Learner::file() const {
    const Call call(*this);
    TensorFile made = network_.file();
    for (const Part& part : parts_) made.tensors.at(part.name).bytes = acting_.data() + part.first;
    return made.written();
}

namespace {

struct Mark {
    char name[8];
    uint64_t network, payload;  // hashes
    int64_t numbers;
    double counts[3];  // steps, and Adam's betas to their power
};

constexpr char kName[8] = {'s', 'r', 'c', 'l', 'e', 'a', 'r', '1'};

// A hash of a saved state's counts and numbers.
uint64_t payload_of(const Mark& mark, const void* numbers, size_t size) {
    uint64_t sum = kHashStart;
    add_to_hash(sum, mark.counts, sizeof mark.counts);
    add_to_hash(sum, numbers, size);
    return sum;
}

}  // namespace

size_t Learner::state_bytes() const { return sizeof(Mark) + 3 * static_cast<size_t>(numbers_.size()) * sizeof(float); }

void Learner::save(void* to) const {
    const Call call(*this);
    Mark mark = {{}, network_.fingerprint(), 0, numbers_.size(), {steps_, mean_power_, variance_power_}};
    std::memcpy(mark.name, kName, sizeof kName);
    auto* const first = static_cast<char*>(to) + sizeof mark;
    auto* at = first;
    const auto bytes = static_cast<size_t>(numbers_.size()) * sizeof(float);
    for (const Aligned<float>* numbers : {&numbers_, &mean_, &variance_}) {
        std::memcpy(at, numbers->data(), bytes);
        at += bytes;
    }
    mark.payload = payload_of(mark, first, 3 * bytes);
    std::memcpy(to, &mark, sizeof mark);
}

void Learner::restore(const void* from, size_t size) {
    const Call call(*this);
    Mark mark = {};
    const auto* at = static_cast<const char*>(from);
    if (size >= sizeof mark) std::memcpy(&mark, at, sizeof mark);
    if (size != state_bytes() || std::memcmp(mark.name, kName, sizeof kName) != 0 ||
        mark.network != network_.fingerprint() || mark.numbers != numbers_.size())
        refuse("state", std::to_string(state_bytes()) + " bytes that a learner of this network and these layers saved");
    at += sizeof mark;
    const auto bytes = static_cast<size_t>(numbers_.size()) * sizeof(float);
    if (mark.payload != payload_of(mark, at, 3 * bytes)) refuse("state", "the bytes that were saved, got altered ones");
    for (Aligned<float>* numbers : {&numbers_, &mean_, &variance_}) {
        std::memcpy(numbers->data(), at, bytes);
        at += bytes;
    }
    steps_ = mark.counts[0], mean_power_ = mark.counts[1], variance_power_ = mark.counts[2];
    act();
}

}  // namespace srcell
