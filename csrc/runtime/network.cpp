// Builds a network from a file's tensors, and runs it: layer by layer over batches of events, or step by step.
#include "network.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "../cpu/dispatch.h"
#include "../cpu/event_rows.h"
#include "../cpu/float_control.h"
#include "../cpu/listed_events.h"
#include "../cpu/parallel.h"
#include "../domains.h"
#include "file_entries.h"

namespace srcell {

namespace {

constexpr int64_t kMaxLayers = 1 << 16, kMaxNeurons = int64_t(1) << 31;
// The versions of a network's file: the second may have layers that resonate, the third delays as well, the fourth
// convolutions, constant currents and a cochlea as well, the fifth standardised inputs as well, and the sixth a skip
// connection of the readout as well.
constexpr const char* kVersions[] = {"1", "2", "3", "4", "5", "6"};
constexpr int kDelayedVersion = 3, kMapVersion = 4, kStandardisedVersion = 5, kSkipVersion = 6;
// The most elements of a layer's spikes that a run holds at a time, unless one sample has more.
constexpr int64_t kChunkElements = int64_t(1) << 22;

int version_of(const TensorFile& file) {
    const std::string& text = text_of(file, "version");
    const auto found = std::find(std::begin(kVersions), std::end(kVersions), text);
    if (found == std::end(kVersions))
        throw FileError("version: expected 1, 2, 3, 4, 5 or 6, got '" + shown(text) + "': written by a newer srcell");
    return static_cast<int>(found - std::begin(kVersions)) + 1;
}

// The names of the classes, which a file need not have.
std::vector<std::string> class_names_of(const TensorFile& file, int64_t classes) {
    const auto text = file.texts.find("classes");
    if (text == file.texts.end()) return {};
    std::vector<std::string> names = strings_of("classes", text->second);
    if (static_cast<int64_t>(names.size()) != classes)
        throw FileError("classes: expected " + std::to_string(classes) + " names, one for each class, got " +
                        std::to_string(names.size()));
    return names;
}

// Throws if a file has what only later versions may have.
void check_version(int version, int least, const std::string& name) {
    if (version < least) throw FileError(name + ": expected none in a file of version " + kVersions[version - 1]);
}

// Repeats each element `places` times: the neurons of a channel share it.
template <class T>
std::vector<T> over_places(std::vector<T> values, int64_t places) {
    if (places == 1) return values;
    std::vector<T> made;
    made.reserve(values.size() * static_cast<size_t>(places));
    for (const T value : values) made.insert(made.end(), static_cast<size_t>(places), value);
    return made;
}

// The values of one parameter: one for the layer, or one for each neuron or, where neurons share a channel, for each
// channel.
std::vector<float> parameter_of(const TensorFile& file, const std::string& name, int k, int64_t neurons,
                                int64_t places) {
    std::vector<float> values = numbers_of<float>(file, name, {-1});
    const int64_t channels = neurons / places;
    if (values.size() != 1 && static_cast<int64_t>(values.size()) != channels)
        throw FileError(name + ": expected 1 or " + std::to_string(channels) + " values, got " +
                        std::to_string(values.size()));
    for (const float value : values)
        if (const char* expected = expected_of_parameter(k, value, true))
            throw FileError(name + ": expected " + expected);
    return values.size() == 1 ? values : over_places(std::move(values), places);
}

IntegerCell integer_cell_of(const TensorFile& file, const std::string& name) {
    constexpr auto count = static_cast<int64_t>(std::size(kIntegerConstants));
    IntegerCell cell = {};
    const IntegerFault fault = fill_integer_cell(numbers_of<int32_t>(file, name, {count}).data(), cell);
    if (const IntegerConstant* constant = fault.constant)
        throw FileError(name + ": expected " + constant->name + " in [" + std::to_string(constant->least) + ", " +
                        std::to_string(constant->most) + "], got " + std::to_string(fault.got));
    if (fault.expected) throw FileError(name + ": expected " + fault.expected + ", got " + std::to_string(fault.got));
    return cell;
}

// What is wrong with a state (3, ...) of integer neurons, with `plane` numbers in each part; "" if nothing is.
std::string fault_of_state(const IntegerCell& cell, const int16_t* state, int64_t plane) {
    for (const IntegerBounds& bounds : integer_bounds(cell))
        for (int64_t n = 0; n < plane; ++n, ++state)
            if (*state < bounds.least || *state > bounds.most)
                return std::string("expected ") + bounds.name + " in [" + std::to_string(bounds.least) + ", " +
                       std::to_string(bounds.most) + "], got " + std::to_string(*state);
    return "";
}

// The initial state (3, N) in a file as bytes, or none; in the file (3, N / places).
template <class T>
std::vector<char> initial_of(const TensorFile& file, const std::string& name, int64_t neurons, int64_t places = 1) {
    if (!file.tensors.count(name)) return {};
    const std::vector<T> values = over_places(numbers_of<T>(file, name, {3, neurons / places}), places);
    std::vector<char> made(values.size() * sizeof(T));
    std::memcpy(made.data(), values.data(), made.size());
    return made;
}

// A layer with its delays and the sizes of its weight, but without its neurons yet; reads the weight. `inputs` is -1 if
// any number of them is valid.
template <class T>
NetworkLayer sized_layer(const TensorFile& file, const std::string& prefix, int64_t inputs, std::vector<T>& weight) {
    NetworkLayer made = {};
    made.delays = StoredDelays::of(file, prefix + "delays", inputs, -1);
    const int64_t columns = made.delays ? static_cast<int64_t>(made.delays.first.size()) : inputs;
    const std::string name = prefix + "weight";
    weight = numbers_of<T>(file, name, {-1, columns});
    const std::vector<int64_t>& shape = file.tensors.at(name).shape;
    made.neurons = shape[0], made.columns = shape[1], made.inputs = made.columns / made.delays.taps;
    if (made.neurons < 1 || made.columns < 1 || made.neurons > kMaxNeurons || made.columns > kMaxNeurons)
        throw FileError(name + ": expected from 1 to 2^31 neurons and inputs, got " + shape_text(shape));
    return made;
}

// The arguments of the kernels that pack weights.
template <class Weight>
EventSynapse<float, Weight> packing(const NetworkLayer& layer, const Weight* weight, Weight* packed) {
    // As many events as inputs: one row is packed per input.
    return {{nullptr, nullptr, nullptr, layer.columns, layer.columns}, weight, packed, false};
}

ScanShape shape_of(const NetworkLayer& layer) { return {0, 0, layer.neurons, nullptr, 1}; }

NetworkLayer integer_layer_of(const TensorFile& file, const std::string& prefix, int64_t inputs,
                              const Kernels& kernels) {
    std::vector<int16_t> weight;
    NetworkLayer made = sized_layer(file, prefix, inputs, weight);
    if (made.delays) throw FileError(prefix + "delays: expected none for integer neurons");
    const int64_t width = integer_tile_width(made.neurons);
    IntegerNeurons neurons = {Aligned<int16_t>(event_tiles(made.neurons) * made.columns * width),
                              integer_cell_of(file, prefix + "constants"),
                              exact_events(weight.data(), static_cast<int64_t>(weight.size()))};
    kernels.pack_integers(shape_of(made), packing(made, weight.data(), neurons.weight.data()));
    made.kind = std::move(neurons);
    made.initial = initial_of<int16_t>(file, prefix + "initial", made.neurons);
    if (made.initial.empty()) return made;
    if (const std::string fault = made.fault_of(made.initial.data(), 1); !fault.empty())
        throw FileError(prefix + "initial: " + fault);
    return made;
}

// Appends a column to a matrix of as many rows.
std::vector<float> with_column(const std::vector<float>& matrix, const std::vector<float>& column) {
    std::vector<float> made;
    made.reserve(matrix.size() + column.size());
    const size_t columns = matrix.size() / column.size();
    for (size_t row = 0; row < column.size(); ++row) {
        made.insert(made.end(), matrix.data() + row * columns, matrix.data() + (row + 1) * columns);
        made.push_back(column[row]);
    }
    return made;
}

// Reads a layer's weights and packs them.
NetworkLayer packed_layer(const TensorFile& file, const std::string& prefix, int64_t inputs, const Kernels& kernels,
                          FloatNeurons& neurons) {
    std::vector<float> weight;
    NetworkLayer made = sized_layer(file, prefix, inputs, weight);
    if (file.tensors.count(prefix + "constant")) {
        weight = with_column(weight, numbers_of<float>(file, prefix + "constant", {made.neurons}));
        made.constant = true, ++made.columns;
    }
    neurons.weight = Aligned<float>(made.columns * lateral_width(made.neurons));
    kernels.f32.pack_weight(shape_of(made), packing(made, weight.data(), neurons.weight.data()));
    if (file.tensors.count(prefix + "lateral")) {
        const auto lateral = numbers_of<float>(file, prefix + "lateral", {made.neurons, made.neurons});
        neurons.lateral = Aligned<float>(made.neurons * lateral_width(made.neurons));
        kernels.f32.pack_lateral({lateral.data(), neurons.lateral.data(), false, false}, shape_of(made));
        neurons.delays = StoredDelays::of(file, prefix + "lateral_delays", made.neurons, 1);
    }
    return made;
}

// A layer of neurons that form a map.
NetworkLayer map_layer(const TensorFile& file, const std::string& prefix, int64_t inputs, FloatNeurons& neurons) {
    const Convolution& read = neurons.convolution.emplace(StoredConvolution::read(file, prefix)).of.view();
    if (inputs >= 0 && read.inputs() != inputs)
        throw FileError(prefix + "convolution: expected the " + std::to_string(inputs) +
                        " neurons of the layer below as inputs, got " + std::to_string(read.inputs()));
    NetworkLayer made = {};
    made.inputs = made.columns = read.inputs(), made.neurons = read.neurons();
    return made;
}

NetworkLayer float_layer_of(const TensorFile& file, const std::string& prefix, int64_t inputs, const Kernels& kernels) {
    FloatNeurons neurons;
    const bool is_map = file.tensors.count(prefix + "convolution");
    NetworkLayer made =
        is_map ? map_layer(file, prefix, inputs, neurons) : packed_layer(file, prefix, inputs, kernels, neurons);
    const int64_t places = neurons.convolution ? neurons.convolution->of.view().places() : 1;  // that share parameters
    for (int k = 0; k < kParameters; ++k) {
        const ParameterRow& row = kParameterTable[k];
        std::vector<float>& values = neurons.parameters[k];
        if (row.version == 1 || file.tensors.count(prefix + row.name))
            values = parameter_of(file, prefix + row.name, k, made.neurons, places);
        const float* const data = values.empty() ? nullptr : values.data();
        neurons.cell.of[k] = {data, values.size() > 1 ? 1 : 0, static_cast<float>(row.standard)};
    }
    if (!neurons.parameters[kOmega].empty()) neurons.turn = OwnTurn<float>(kernels, neurons.cell, made.neurons);
    made.kind = std::move(neurons);
    made.initial = initial_of<float>(file, prefix + "initial", made.neurons, places);
    made.rule = LearningRule::of(file, prefix + "learning");
    return made;
}

uint64_t fingerprint_of(const TensorFile& file) {
    uint64_t sum = kHashStart;
    const auto add_text = [&](const std::string& text) { add_to_hash(sum, text.data(), text.size()); };
    for (const auto& [name, text] : file.texts) add_text(name), add_text(text);
    for (const auto& [name, tensor] : file.tensors) {
        add_text(name), add_text(tensor.dtype);
        add_to_hash(sum, tensor.shape.data(), tensor.shape.size() * sizeof(int64_t));
        add_to_hash(sum, tensor.bytes, tensor.size());
    }
    return sum;
}

[[noreturn]] void refuse_events(const char* expected) { throw std::invalid_argument(expected); }

Fault fault_of(const NetworkInput& input) {
    const Events<float>& events = input.events;
    return find_fault({events.offsets, events.indices, events.values, nullptr, input.lengths, input.steps, input.batch,
                       events.inputs, events.count, 1})
        .fault;
}

// Says what is wrong with events that a kernel or check_events() rejected.
[[noreturn]] void explain(const NetworkInput& input) {
    switch (fault_of(input)) {
        case Fault::kLength:
            refuse_events("lengths: expected values from 0 to the number of steps");
        case Fault::kFirstOffset:
        case Fault::kDescent:
        case Fault::kLastOffset:
            refuse_events("offsets: expected values that ascend from 0 to the number of indices");
        case Fault::kIndex:
            refuse_events("indices: expected values from 0 to the number of inputs less 1");
        case Fault::kNan:
            refuse_events("values: expected no NaN");
        case Fault::kPastLength:
            refuse_events("lengths: expected no event past a sample's length");
        case Fault::kNone:
            break;
    }
    refuse_events("events: expected arrays that are not altered during a call");
}

// Checks what the kernels do not check. The kernels of layers check the offsets and indices of the samples that they
// get, unless the events are `rewritten` before: with delays, or with a constant input.
void check_events(const NetworkInput& input, bool rewritten) {
    if (rewritten) return check_events(input);
    const Events<float>& events = input.events;
    bool good = events.offsets[0] == 0 && events.offsets[input.batch * input.steps] == events.count;
    int64_t before = 0;
    for (int64_t b = 0; good && b < input.batch; ++b) {
        const int64_t length = input.lengths ? read_once(input.lengths + b) : input.steps,
                      end = read_once(events.offsets + (b + 1) * input.steps);
        good = length >= 0 && length <= input.steps && before <= end && end <= events.count &&
               events.offsets[b * input.steps + length] == end;
        before = end;
    }
    if (events.values && good)
        for (int64_t n = 0; n < events.count; ++n) good &= events.values[n] == events.values[n];
    if (!good) explain(input);
}

// The events of a range of samples, as a batch of its own. The offsets are copied, because another thread may write
// into the caller's array.
Events<float> part_of(const NetworkInput& input, int64_t first, int64_t batch, Block<int64_t>& offsets) {
    const int64_t rows = batch * input.steps, all = input.events.count;
    const int64_t* from = input.events.offsets + first * input.steps;
    offsets = Block<int64_t>(rows + 1);
    const int64_t begin = clamp_to(read_once(from), 0, all);
    for (int64_t row = 0; row <= rows; ++row) offsets.data()[row] = clamp_to(read_once(from + row), begin, all) - begin;
    const float* given = input.events.values;
    return {offsets.data(), input.events.indices + begin, given ? given + begin : nullptr, offsets.data()[rows],
            input.events.inputs};
}

struct ReadoutJob {
    const Readout& readout;
    const Kernels& kernels;
    const float* spikes;
    int64_t steps, batch;
    const int64_t* lengths;
    double* sums;                  // (B, N) scratch
    float* logits;                 // of the first of these samples; the next one's are beside it
    int64_t plane;                 // from the logits of a step to those of the next; 0: those after the last step alone
    const Events<float>& entered;  // the network's input, (B * T) rows
    double* passed;                // (B, C) scratch with a skip connection, else null

    // The outer loop runs over the steps, the inner one over the samples, because a step's spikes are contiguous.
    static void run(void* self, int64_t begin, int64_t end) {
        const ReadoutJob& job = *static_cast<const ReadoutJob*>(self);
        const Readout& readout = job.readout;
        if (job.plane) {
            for (int64_t b = begin; b < end; ++b) job.every_step(b);
            return;
        }
        std::fill(job.sums + begin * readout.neurons, job.sums + end * readout.neurons, 0.0);
        for (int64_t t = 0; t < job.steps; ++t)
            for (int64_t b = begin; b < end; ++b) {
                const int64_t length = job.lengths ? job.lengths[b] : job.steps;
                if (t >= length || (readout.window && t < length - readout.window)) continue;
                readout.add(job.kernels, job.sums + b * readout.neurons,
                            job.spikes + (t * job.batch + b) * readout.neurons);
            }
        for (int64_t b = begin; b < end; ++b) {
            // Another thread may write to the lengths since they were checked.
            const int64_t length =
                job.lengths ? std::clamp<int64_t>(read_once(job.lengths + b), 0, job.steps) : job.steps;
            readout.logits(job.sums + b * readout.neurons, job.of_input(length - 1, b),
                           job.logits + b * readout.classes);
        }
    }

    // What the skip connection makes of sample b's input at step t, which is -1 if the sample has none.
    const double* of_input(int64_t t, int64_t b) const {
        if (!passed) return nullptr;
        double* const to = passed + b * readout.classes;
        if (t < 0)
            std::fill(to, to + readout.classes, 0.0);
        else
            readout.pass(entered, b * steps + t, to);
        return to;
    }

    // The logits of sample b at every step, as a stream gives them: with a window, each from sums of its own.
    void every_step(int64_t b) const {
        const int64_t length = lengths ? lengths[b] : steps, neurons = readout.neurons;
        double* const own = sums + b * neurons;
        std::fill(own, own + neurons, 0.0);
        float* to = logits + b * readout.classes;
        for (int64_t t = 0; t < steps; ++t, to += plane) {
            if (t >= length) {
                std::fill(to, to + readout.classes, 0.0f);
                continue;
            }
            if (readout.window) std::fill(own, own + neurons, 0.0);
            const int64_t first = readout.window ? std::max<int64_t>(t + 1 - readout.window, 0) : t;
            for (int64_t u = first; u <= t; ++u) readout.add(kernels, own, spikes + (u * batch + b) * neurons);
            readout.logits(own, of_input(t, b), to);
        }
    }
};

}  // namespace

void check_events(const NetworkInput& input) {
    if (fault_of(input) != Fault::kNone) explain(input);
}

DelayedInput::DelayedInput(const Kernels& kernels, const ScanShape& shape, const Events<float>& events,
                           const StoredDelays& delays)
    : starts_(shape.batch + 1), cursors_(shape.batch * shape.steps), offsets_(shape.batch * shape.steps + 1) {
    const DelayedEvents<float> delayed = {shape, 0, delays.view(), events};
    kernels.f32.count_delayed({delayed, starts_.data()});
    const int64_t count = starts_.data()[shape.batch];
    indices_ = Block<int32_t>(count);
    if (events.values || delayed.delays.factors) values_ = Block<float>(count);
    const DelayedRows<float> rows = {delayed, cursors_.data(), offsets_.data(), count};
    kernels.f32.write_delayed({rows, starts_.data(), indices_.data(), values_.data()});
    offsets_.data()[shape.batch * shape.steps] = count;
    events_ = {offsets_.data(), indices_.data(), values_.data(), count, delayed.delays.numbers};
}

int64_t DelayedInput::count(const Kernels& kernels, const ScanShape& shape, const Events<float>& events,
                            const StoredDelays& delays) {
    const Block<int64_t> starts(shape.batch + 1);
    kernels.f32.count_delayed({{shape, 0, delays.view(), events}, starts.data()});
    return starts.data()[shape.batch];
}

Network::Network(const TensorFile& file) : file_(file), kernels_(preferred_kernels()) {
    if (text_of(file, "format") != "srcell.network") throw FileError("format: expected 'srcell.network'");
    const int version = version_of(file);
    size_t used = 0;
    int64_t room = 0, in_maps = 0, taps = 0;
    for (int64_t k = 0, inputs = -1;
         k < kMaxLayers && (!k || file.tensors.count("layers." + std::to_string(k) + ".weight")); ++k) {
        const std::string prefix = "layers." + std::to_string(k) + ".";
        layers_.push_back(file.tensors.count(prefix + "constants") ? integer_layer_of(file, prefix, inputs, *kernels_)
                                                                   : float_layer_of(file, prefix, inputs, *kernels_));
        const NetworkLayer& layer = layers_.back();
        if (layer.is_integer() != layers_.front().is_integer())
            throw FileError(prefix + "weight: expected layers that are all of floats, or all of integers");
        inputs = layer.neurons;
        for (int p = 0; p < kParameters; ++p) {
            if (!layer.has(p)) continue;
            check_version(version, kParameterTable[p].version, prefix + kParameterTable[p].name);
            ++used;
        }
        if (layer.convolution()) {
            check_version(version, kMapVersion, prefix + "convolution");
            in_maps += layer.neurons, taps += layer.convolution()->taps();
            if (in_maps > kMostInMaps || taps > kMostTaps)
                throw FileError(prefix + "convolution: expected at most " + std::to_string(kMostInMaps) +
                                " neurons in maps, and as many rows and columns times those of the kernels, in all "
                                "layers together, got " +
                                std::to_string(in_maps) + " and " + std::to_string(taps));
        }
        room += layer.delays.room() + layer.lateral_delays().room();
        if (room > kMostRoom)
            throw FileError(prefix + "delays: expected at most " + std::to_string(kMostRoom) +
                            " numbers on their way to a sample, in all layers together, got " + std::to_string(room));
        if (layer.delayed()) check_version(version, kDelayedVersion, prefix + "delays");
        if (layer.constant) check_version(version, kMapVersion, prefix + "constant");
        used += 1 + (layer.convolution() != nullptr) + layer.constant + layer.is_integer() + layer.lateral() +
                !layer.initial.empty() + layer.delays.tensors() + layer.lateral_delays().tensors();
    }
    readout_ = Readout::of(file, outputs(), inputs());
    if (readout_.inputs) check_version(version, kSkipVersion, "readout.skip");
    used += readout_.tensors();
    class_names_ = class_names_of(file, readout_.classes);
    cochlea_ = Cochlea::of_file(file);
    if (cochlea_) {
        check_version(version, kMapVersion, "sound");
        if (cochlea_.inputs() != inputs())
            throw FileError("sound.sections: expected bands for the network's " + std::to_string(inputs()) +
                            " inputs, got " + std::to_string(cochlea_.bands));
        if (layers_.front().is_integer() && !(cochlea_.threshold > 0))
            throw FileError("sound.constants: expected a threshold > 0 for integer neurons, which take no currents");
        used += Cochlea::kTensors;
    }
    standardisation_ = Standardisation::of_file(file, inputs());
    if (standardisation_) {
        check_version(version, kStandardisedVersion, "input.mean");
        if (layers_.front().is_integer())
            throw FileError("input.mean: expected none for integer neurons, which take no currents");
        used += Standardisation::kTensors;
    }
    holding_ = Holding::of_texts(file.texts);
    if (used != file.tensors.size())
        throw FileError("header: expected " + std::to_string(used) + " tensors for " + std::to_string(layers_.size()) +
                        " layers and the readout, got " + std::to_string(file.tensors.size()));
    fingerprint_ = fingerprint_of(file);
}

const StoredDelays& NetworkLayer::lateral_delays() const {
    static const StoredDelays none;
    const auto* neurons = std::get_if<FloatNeurons>(&kind);
    return neurons ? neurons->delays : none;
}

const StoredConvolution* NetworkLayer::convolution() const {
    const auto* neurons = std::get_if<FloatNeurons>(&kind);
    return neurons && neurons->convolution ? &*neurons->convolution : nullptr;
}

int64_t NetworkLayer::weights() const {
    if (convolution()) return convolution()->of.view().weights();
    return columns * neurons + (lateral() ? neurons * neurons : 0);
}

int64_t NetworkLayer::memory_bytes(const Kernels& kernels) const {
    if (convolution()) return kernels.f32.convolution_memory(convolution()->of.view());
    return lateral() ? kernels.f32.lateral_forward_memory(neurons) : 0;
}

int64_t Network::widest() const {
    int64_t most = 0;
    for (const NetworkLayer& layer : layers_) most = std::max(most, layer.neurons);
    return most;
}

int64_t Network::bytes() const {
    auto bytes =
        static_cast<int64_t>((readout_.weight.size() + readout_.bias.size() + readout_.skip.size()) * sizeof(float));
    bytes += 2 * standardisation_.inputs() * static_cast<int64_t>(sizeof(float));
    for (const NetworkLayer& layer : layers_) {
        int64_t numbers = layer.weights();
        for (const StoredDelays* delays : {&layer.delays, &layer.lateral_delays()})
            numbers += static_cast<int64_t>(delays->first.size() + delays->factors.size());
        if (const auto* neurons = std::get_if<FloatNeurons>(&layer.kind))
            for (const auto& values : neurons->parameters)
                numbers += ceil_div(static_cast<int64_t>(values.size()), layer.places());  // once for each channel
        bytes += numbers * layer.state_bytes(1) / (layer.states() * layer.neurons);
    }
    return bytes;
}

void WithConstant::reserve(int64_t rows, int64_t events) {
    offsets_.resize(static_cast<size_t>(rows + 1));
    if (const auto most = static_cast<size_t>(events + rows); indices_.size() < most)
        indices_.resize(most), values_.resize(most);
}

Events<float> WithConstant::append(const ScanShape& shape, const Events<float>& events) {
    const int64_t rows = shape.batch * shape.steps, most = events.count + rows;
    reserve(rows, events.count);
    int64_t at = 0;
    for (int64_t row = 0; row < rows; ++row) {
        const EventRange range = events_of_row(events, row);
        const int64_t size = std::min(range.size(), most - rows + row - at);  // the array may be altered meanwhile
        offsets_[static_cast<size_t>(row)] = at;
        std::copy_n(events.indices + range.begin, size, indices_.data() + at);
        if (events.values) std::copy_n(events.values + range.begin, size, values_.data() + at);
        at += size;
        if (shape.lengths && row % shape.steps >= read_once(shape.lengths + row / shape.steps)) continue;
        if (events.values) values_[static_cast<size_t>(at)] = 1;
        indices_[static_cast<size_t>(at++)] = static_cast<int32_t>(events.inputs);
    }
    offsets_.back() = at;
    return {offsets_.data(), indices_.data(), events.values ? values_.data() : nullptr, at, events.inputs + 1};
}

void leave_out_ones(const NetworkLayer& layer, Events<float>& events) {
    if (!layer.is_integer() || !events.values) return;
    for (int64_t n = 0; n < events.count; ++n)
        if (events.values[n] != 1) throw std::invalid_argument("values: expected 1 for integer neurons");
    events.values = nullptr;
}

bool IntegerNeurons::run(const Kernels& kernels, const LayerInput& input, const int16_t* before, float* spikes,
                         int16_t* after) const {
    const int64_t plane = input.shape.batch * input.shape.neurons;
    int64_t clamped = 0;
    IntegerForward p = {};
    p.shape = input.shape;
    p.cell = cell;
    p.synapse = {input.events, nullptr, weight.data(), true};
    p.exact = exact;
    p.i0 = before, p.h0 = before + plane, p.hs0 = before + 2 * plane;
    p.float_spikes = spikes;
    p.i = after, p.h = after + plane, p.hs = after + 2 * plane;
    p.clamped = &clamped;
    return kernels.integer_forward(p) < 0;
}

bool FloatNeurons::run(const Kernels& kernels, const LayerInput& input, const float* before, float* spikes,
                       float* after) const {
    const int64_t plane = input.shape.batch * input.shape.neurons;
    CellForward<float> cells = {input.shape, cell, turn.view(), {}, spikes, {}};
    for (int state = 0; state < states_of(resonate()); ++state)
        cells.before.of[state] = before + state * plane, cells.after.of[state] = after + state * plane;
    if (convolution) {
        const int64_t returned = kernels.f32.convolution_forward({cells,
                                                                  convolution->of.view(),
                                                                  {false, input.events, nullptr},
                                                                  convolution->packed_weight.data(),
                                                                  nullptr,
                                                                  input.memory});
        if (returned == kOutOfMemory) throw std::bad_alloc();
        return returned < 0;
    }
    const EventSynapse<float> synapse = {input.events, nullptr, weight.data(), true};
    const TracedForward<float> traced = {cells, input.trace, input.checkpoints, false};
    if (!lateral.size()) return kernels.f32.events_forward({traced, synapse}) < 0;
    LateralForward<float> p = {};
    static_cast<TracedForward<float>&>(p) = traced;
    p.source = synapse;
    p.lateral = {nullptr, lateral.data(), false, true};
    p.arrivals = input.arrivals;
    p.memory = input.memory;
    const bool in_kernel = delays && !input.arrivals;
    std::vector<int32_t> later(in_kernel ? delays.first.size() * static_cast<size_t>(delays.terms) : 0);
    if (in_kernel) p.delays = {{delays.view(), delays.longest, later.data(), nullptr}};
    const int64_t returned = kernels.f32.lateral_forward(p);
    if (returned == kOutOfMemory) throw std::bad_alloc();
    return returned < 0;
}

bool NetworkLayer::run(const Kernels& kernels, LayerInput input, const char* before, float* spikes, char* after) const {
    input.shape.neurons = neurons;
    return std::visit(
        [&](const auto& of) {
            using Number = typename std::decay_t<decltype(of)>::Number;
            return of.run(kernels, input, reinterpret_cast<const Number*>(before), spikes,
                          reinterpret_cast<Number*>(after));
        },
        kind);
}

int64_t NetworkLayer::state_bytes(int64_t batch) const {
    return states() * batch * neurons * static_cast<int64_t>(is_integer() ? sizeof(int16_t) : sizeof(float));
}

void NetworkLayer::pack(const Kernels& kernels, const float* weight, const float* lateral) {
    auto& of = std::get<FloatNeurons>(kind);
    kernels.f32.pack_weight(shape_of(*this), packing(*this, weight, of.weight.data()));
    if (lateral) kernels.f32.pack_lateral({lateral, of.lateral.data(), false, false}, shape_of(*this));
}

void NetworkLayer::values(const char* state, int64_t batch, float* to) const {
    std::visit(
        [&](const auto& of) {
            using Number = typename std::decay_t<decltype(of)>::Number;
            std::copy_n(reinterpret_cast<const Number*>(state), 3 * batch * neurons, to);
        },
        kind);
}

std::string NetworkLayer::fault_of(const char* state, int64_t batch) const {
    const auto* integers = std::get_if<IntegerNeurons>(&kind);
    if (!integers) return "";
    return fault_of_state(integers->cell, reinterpret_cast<const int16_t*>(state), batch * neurons);
}

void NetworkLayer::initial_state(int64_t batch, char* to) const {
    std::fill(to, to + state_bytes(batch), '\0');
    if (initial.empty()) return;
    const int64_t row_bytes = state_bytes(1) / states();
    for (int64_t row = 0; row < 3 * batch; ++row) {
        const char* from = initial.data() + row / batch * row_bytes;
        std::copy(from, from + row_bytes, to + row * row_bytes);
    }
}

int64_t count_rows(int64_t steps, int64_t batch) {
    if (steps < 0 || batch < 0 || (steps && batch >= INT64_MAX / steps))
        throw std::invalid_argument("steps and batch: expected at least 0, and a product below 2^63");
    return steps * batch;
}

void Network::run(const NetworkInput& input, const NetworkOutput& output, int threads) const {
    const PlainArithmetic plain;
    count_rows(input.steps, input.batch);
    if (output.events) {
        std::fill(output.events, output.events + 1 + layers_.size(), 0);
        std::fill(output.operations, output.operations + layers_.size(), 0);
    }
    if (!input.steps && readout_.kind == Readout::kNone) return;  // without steps B may have any size
    check_events(input, standardisation_ || layers_.front().delays || layers_.front().constant || readout_.inputs);
    threads = std::clamp(threads, 1, kMaxThreads);
    const int64_t steps = std::max<int64_t>(input.steps, 1);
    const int64_t most = std::max(widest(), standardisation_.inputs());
    const int64_t fit = most > kChunkElements / steps ? 1 : kChunkElements / (steps * most);
    const int64_t chunk = std::min(input.batch, std::max<int64_t>(fit, threads));
    for (int64_t first = 0; first < input.batch; first += chunk)
        run_samples(input, output, first, std::min(chunk, input.batch - first), threads);
}

void Network::run_samples(const NetworkInput& input, const NetworkOutput& output, int64_t first, int64_t batch,
                          int threads) const {
    const int64_t steps = input.steps;
    const ScanShape shape = {steps, batch, 0, input.lengths ? input.lengths + first : nullptr, threads};
    Block<int64_t> offsets;
    Block<float> spikes;
    std::optional<ListedEvents<float>> listed;
    std::optional<DelayedInput> delayed;
    WithConstant with_constant;
    std::optional<StandardisedRows> standardised;
    Events<float> events = part_of(input, first, batch, offsets);
    if (standardisation_)
        events = standardised.emplace(standardisation_, steps * batch)
                     .of_events({steps, batch, shape.lengths, threads}, events);
    if (output.events) output.events[0] += events.count;
    const Events<float> entered = events;
    for (size_t k = 0; k < layers_.size(); ++k) {
        const NetworkLayer& layer = layers_[k];
        const int64_t plane = batch * layer.neurons;
        spikes = Block<float>(steps * plane);
        const int64_t state = layer.state_bytes(batch);
        const Block<char> states(2 * state);
        layer.initial_state(batch, states.data());
        leave_out_ones(layer, events);
        if (layer.delays) events = delayed.emplace(*kernels_, shape, events, layer.delays).events();
        if (layer.constant) events = with_constant.append(shape, events);
        const LayerInput given = {shape, events, nullptr, nullptr};
        if (!layer.run(*kernels_, given, states.data(), spikes.data(), states.data() + state)) explain(input);
        if (output.operations)
            output.operations[k] += layer.convolution()
                                        ? layer.convolution()->of.operations(events.indices, events.count)
                                        : events.count * layer.neurons;
        if (output.spikes && output.spikes[k])
            for (int64_t t = 0; t < steps; ++t)
                std::copy(spikes.data() + t * plane, spikes.data() + (t + 1) * plane,
                          output.spikes[k] + (t * input.batch + first) * layer.neurons);
        const bool last = k + 1 == layers_.size();
        if (last && !output.events) break;
        listed.emplace(*kernels_, shape, layer.neurons, spikes.data());
        events = listed->events();
        if (!output.events) continue;
        output.events[k + 1] += events.count;
        if (!layer.lateral()) continue;
        const StoredDelays& delays = layer.lateral_delays();
        output.operations[k] +=
            layer.neurons * (delays ? DelayedInput::count(*kernels_, shape, events, delays) : events.count);
    }
    if (!output.logits || readout_.kind == Readout::kNone) return;
    const Block<double> sums(batch * readout_.neurons), passed(readout_.inputs ? batch * readout_.classes : 0);
    ReadoutJob job = {readout_,
                      *kernels_,
                      spikes.data(),
                      steps,
                      batch,
                      shape.lengths,
                      sums.data(),
                      output.logits + first * readout_.classes,
                      output.every_step ? input.batch * readout_.classes : 0,
                      entered,
                      readout_.inputs ? passed.data() : nullptr};
    parallel_for(batch, threads, ReadoutJob::run, &job);
}

}  // namespace srcell
