// The kernels of a layer in the compiled module srcell._core, on given currents and after a linear synapse on events,
// and the counts of spikes and of nonzero elements. Turns arguments into structs, releases the GIL, and raises for the
// first invalid offset or index of a batch that a kernel refused. core.cpp calls bind_layer().
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "layer.h"

#include "../cpu/event_rows.h"
#include "../cpu/traced_backward.h"

namespace srcell {

void refuse_sample(const EventRows& rows, const ScanShape& shape, int64_t sample) {
    const auto* const offsets = pointer<const int64_t>(rows.offsets);
    const auto* const indices = pointer<const int32_t>(rows.indices);
    const auto [fault, at] = find_fault({offsets, indices, nullptr, nullptr, nullptr, shape.steps, shape.batch,
                                         rows.inputs, rows.count, shape.threads});
    const std::string altered = " (the batch was altered after it was made)";
    if (fault == Fault::kFirstOffset)
        value_error("offsets: expected the first to be 0, got ", read_once(offsets), altered);
    if (fault == Fault::kDescent)
        value_error("offsets: expected ascending values, got ", read_once(offsets + at - 1), " and then ",
                    read_once(offsets + at), " at position ", at, altered);
    if (fault == Fault::kLastOffset)
        value_error("offsets: expected the last to be ", rows.count, ", the number of indices, got ",
                    read_once(offsets + at), altered);
    if (fault == Fault::kIndex)
        value_error("indices: expected values in [0, ", rows.inputs, "), got ", read_once(indices + at),
                    " at position ", at, altered);
    value_error("events: expected a batch that is not altered during a call; sample ", sample, " was");
}

namespace {

// Throws unless a kernel on events returned -1. Other values are kOutOfMemory and the number of the first invalid
// sample.
void check_returned(int64_t returned, const Layer& layer, const EventRows* rows) {
    if (returned == kOutOfMemory) throw std::bad_alloc();
    if (returned >= 0) refuse_sample(*rows, layer.shape, returned);
}

// `packed` is scratch.
template <class T>
Lateral<T> lateral_of(const Layer& layer, T* packed) {
    return {pointer<const T>(layer.lateral), packed, layer.lateral_relu, false};
}

}  // namespace

void traced_forward(const Layer& layer, const Outputs& outputs, const EventRows* rows, Address weight, Address current,
                    const Saved& saved, bool trace_integrator) {
    const int64_t returned = layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const int64_t neurons = layer.shape.neurons, tiles = event_tiles(neurons) * event_tile_width(neurons);
        const Block<T> packed(rows ? packed_rows(rows->inputs, rows->count) * tiles : 0);
        const Block<T> packed_lateral(layer.lateral ? neurons * lateral_width(neurons) : 0);
        const Block<int32_t> later(layer.terms());
        const TracedForward<T> cells = traced_forward_of(layer, cell, outputs, saved, trace_integrator);
        EventSynapse<T> synapse = {{}, pointer<const T>(weight), packed.data(), false};
        if (rows) synapse.events = rows->of<T>();
        if (!layer.lateral) {
            const ReleasedGil release;
            return kernels().of<T>().events_forward({cells, synapse});
        }
        LateralForward<T> p = {cells,
                               GivenCurrents<T>{pointer<const T>(current)},
                               lateral_of(layer, packed_lateral.data()),
                               delays_forward_of<T>(layer, outputs, later.data()),
                               nullptr,
                               nullptr};
        if (rows) p.source = synapse;
        const ReleasedGil release;
        return kernels().of<T>().lateral_forward(p);
    });
    check_returned(returned, layer, rows);
}

namespace {

void backward_of_events(const Layer& layer, const Outputs& grads, const Gradients& gradients, const EventRows* rows,
                        const Saved& saved, Address grad_current, Address grad_weight) {
    const int64_t returned = layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        std::optional<SynapseGradient<T>> synapse;
        if (rows) synapse = {rows->of<T>(), pointer<T>(grad_weight), nullptr};
        const LateralBackward<T> p = {
            traced_backward_of<T>(layer, cell, grads, gradients, nullptr, saved, grad_current),
            synapse,
            lateral_of<T>(layer, nullptr),
            pointer<T>(gradients[kOfLateral]),
            nullptr,
            delays_backward_of<T>(layer, grads, gradients, nullptr, nullptr)};
        const ReleasedGil release;
        return run_backward(kernels(), p, Blocks());
    });
    check_returned(returned, layer, rows);
}

// The inputs of a few events, ascending, and the place of each event's input among them. Both are empty if the events
// are not few, or if one has no valid input: the kernels then find it.
struct OccurringInputs {
    explicit OccurringInputs(const EventRows& rows) {
        constexpr int64_t kInputsPerEvent = 4;  // so many at least
        if (!rows.count || rows.count > rows.inputs / kInputsPerEvent) return;
        const ReleasedGil release;
        const auto* const indices = pointer<const int32_t>(rows.indices);
        for (int64_t k = 0; k < rows.count; ++k) places.push_back(read_once(indices + k));
        inputs = places;
        std::sort(inputs.begin(), inputs.end());
        inputs.erase(std::unique(inputs.begin(), inputs.end()), inputs.end());
        if (inputs.front() < 0 || inputs.back() >= rows.inputs) inputs.clear();
        for (int32_t& place : places)
            if (!inputs.empty())
                place = static_cast<int32_t>(std::lower_bound(inputs.begin(), inputs.end(), place) - inputs.begin());
    }

    // The gradient (N, K), from that of these inputs.
    template <class T>
    void spread(const T* of_these, int64_t neurons, int64_t all, T* gradient) const {
        const ReleasedGil release;
        std::memset(gradient, 0, static_cast<size_t>(neurons * all) * sizeof(T));
        for (int64_t n = 0; n < neurons; ++n)
            for (const int32_t input : inputs) gradient[n * all + input] = *of_these++;
    }

    std::vector<int32_t> inputs, places;
};

}  // namespace

void traced_backward(const Layer& layer, const Outputs& grads, const Gradients& gradients, const EventRows* rows,
                     const Saved& saved, Address grad_current, Address grad_weight) {
    if (rows && grad_weight) {
        // The sums over all inputs take longer than a short call.
        const OccurringInputs occurring(*rows);
        if (const auto count = static_cast<int64_t>(occurring.inputs.size())) {
            EventRows few = *rows;
            few.indices = address_of(occurring.places.data()), few.inputs = count;
            layer.visit([&](const auto& cell) {
                using T = number_of<decltype(cell)>;
                const Block<T> of_these(layer.shape.neurons * count);
                backward_of_events(layer, grads, gradients, &few, saved, grad_current, address_of(of_these.data()));
                occurring.spread(of_these.data(), layer.shape.neurons, rows->inputs, pointer<T>(grad_weight));
            });
            return;
        }
    }
    backward_of_events(layer, grads, gradients, rows, saved, grad_current, grad_weight);
}

void convolution_forward(const Layer& layer, const Outputs& outputs, const ConvolvedRows& input, const Convolution& map,
                         Address weight, const Saved& saved) {
    const int64_t returned = layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const Block<T> packed(map.packed_weights());
        pack_convolution(map, pointer<const T>(weight), packed.data());
        const ConvolutionForward<T> p = {
            forward_of(layer, cell, outputs), map, input.of<T>(), packed.data(), pointer<T>(saved[1]), nullptr};
        const ReleasedGil release;
        return kernels().of<T>().convolution_forward(p);
    });
    check_returned(returned, layer, input.rows);
}

void convolution_backward(const Layer& layer, const Outputs& grads, const Gradients& gradients,
                          const ConvolvedRows& input, const Convolution& map, Address weight, const Saved& saved,
                          const SynapseGradients& wanted) {
    const int64_t returned = layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const bool whole = wanted.input && !wanted.at_events;
        const Block<T> packed(map.packed_weights()), by_tap(whole ? map.weights() : 0);
        const Block<T> panels(whole ? map.weights() + map.out_channels * kProductPadding : 0);
        const Block<T> partials(count_partials(layer, gradients));
        const Block<T> weight_partials(wanted.weight ? convolution_groups(layer.shape.batch) * map.packed_weights()
                                                     : 0);
        pack_convolution(map, pointer<const T>(weight), packed.data());
        if (whole) order_by_tap(map, pointer<const T>(weight), by_tap.data());
        const ConvolutionBackward<T> p = {backward_of(layer, cell, grads, gradients, partials.data()),
                                          map,
                                          input.of<T>(),
                                          packed.data(),
                                          pointer<const T>(saved[1]),
                                          pointer<T>(wanted.weight),
                                          weight_partials.data(),
                                          pointer<T>(wanted.values),
                                          pointer<T>(wanted.input),
                                          by_tap.data(),
                                          panels.data()};
        const ReleasedGil release;
        return kernels().of<T>().convolution_backward(p);
    });
    check_returned(returned, layer, input.rows);
}

void scan_forward(const Layer& layer, const Outputs& outputs, Address current, const Saved& saved) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const ScanForward<T> p = {forward_of(layer, cell, outputs), pointer<const T>(current), pointer<T>(saved[1])};
        const ReleasedGil release;
        kernels().of<T>().scan_forward(p);
    });
}

void scan_backward(const Layer& layer, const Outputs& grads, const Gradients& gradients, Address current,
                   const Saved& saved, Address grad_current) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const Block<T> partials(count_partials(layer, gradients));
        const ScanBackward<T> p = {backward_of(layer, cell, grads, gradients, partials.data()),
                                   pointer<const T>(current), pointer<const T>(saved[1]), pointer<T>(grad_current)};
        const ReleasedGil release;
        kernels().of<T>().scan_backward(p);
    });
}

void event_dots(const Layer& layer, const EventRows& rows, Address weight_t, Address grad_current, Address grad_values,
                Address grad_input) {
    const int64_t invalid = layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const EventDots<T> p = {layer.shape,
                                rows.of<T>(),
                                pointer<const T>(weight_t),
                                pointer<const T>(grad_current),
                                pointer<T>(grad_values),
                                pointer<T>(grad_input)};
        const ReleasedGil release;
        return kernels().of<T>().event_dots(p);
    });
    if (invalid >= 0) refuse_sample(rows, layer.shape, invalid);
}

namespace {

template <class T>
void multiply(int64_t rows, int64_t inputs, int64_t neurons, int threads, Address gradients, Address weight,
              Address product) {
    const Block<T> packed(neurons * (inputs + kProductPadding));
    const Product<T> p = {rows,
                          inputs,
                          neurons,
                          threads,
                          neurons,
                          pointer<const T>(gradients),
                          pointer<const T>(weight),
                          packed.data(),
                          pointer<T>(product)};
    const ReleasedGil release;
    kernels().of<T>().multiply(p);
}

}  // namespace

bool dense_forward(const Layer& layer, const Outputs& outputs, Address input, int64_t inputs, Address mask,
                   Address weight, const Saved& saved, bool trace_integrator) {
    return layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const auto listed = list_events<T>(layer.shape, inputs, input, pointer<uint64_t>(mask));
        const EventRows events = rows_of(listed.events());
        traced_forward(layer, outputs, &events, weight, 0, saved, trace_integrator);
        return !listed.events().values;
    });
}

bool events_are_faster(bool is_double, const ScanShape& shape, Address input, int64_t inputs, int64_t places) {
    // The unit is one multiply-add of torch's product per neuron and row. kEventCost is the cost of one event, forward
    // and backward; kCurrentCost that of writing a current after the product and reading it in the recurrence. Fitted
    // to the sweep of bench/NOTES.md, where the numbers of neurons and threads cancel out. An event of a convolution
    // meets fewer weights at a time, and its weights are packed once a call: kPackingCost is that of a weight.
    constexpr double kEventCost = 2, kCurrentCost = 60, kConvolvedCost = 10, kPackingCost = 40;
    constexpr int64_t kSampledRows = 256;
    const int64_t rows = shape.steps * shape.batch, stride = std::max<int64_t>(1, rows / kSampledRows);
    if (!rows || !inputs) return true;
    return with_type(is_double, [&](auto zero) {
        using T = decltype(zero);
        const T* const elements = pointer<const T>(input);
        int64_t active = 0, sampled = 0;
        const ReleasedGil release;
        for (int64_t row = 0; row < rows; row += stride) {
            if (shape.lengths && row / shape.batch >= read_once(shape.lengths + row % shape.batch)) continue;
            active += count_nonzero(elements + row * inputs, 1, inputs, 1);
            sampled += inputs;
        }
        const double density = static_cast<double>(active) / static_cast<double>(std::max<int64_t>(sampled, 1));
        if (places)
            return kConvolvedCost * density + kPackingCost / (static_cast<double>(rows) * static_cast<double>(places)) <
                   1;
        return kEventCost * density * static_cast<double>(inputs) < static_cast<double>(inputs) + kCurrentCost;
    });
}

void dense_backward(const Layer& layer, const Outputs& grads, const Gradients& gradients, Address input, int64_t inputs,
                    Address mask, bool ones, const Saved& saved, Address weight, Address weight_t, Address grad_current,
                    Address grad_input, Address grad_weight) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const ScanShape& shape = layer.shape;
        const int64_t rows = shape.steps * shape.batch;
        const Block<T> own(grad_input ? rows * shape.neurons : 0);
        const Address current = grad_input ? address_of(own.data()) : grad_current;
        {
            const auto listed =
                list_events<T>(shape, inputs, input, pointer<uint64_t>(mask), std::optional<bool>(ones));
            const EventRows events = rows_of(listed.events());
            traced_backward(layer, grads, gradients, &events, saved, current, grad_weight);
            if (grad_input && weight_t) event_dots(layer, events, weight_t, current, 0, grad_input);
        }
        if (grad_input && !weight_t)
            multiply<T>(rows, inputs, shape.neurons, shape.threads, current, weight, grad_input);
    });
}

namespace {

bool takes_events(bool is_double, const Sizes& sizes, Address lengths, Address input, int64_t places) {
    const ScanShape shape = {sizes[0], sizes[1], 0, pointer<const int64_t>(lengths), 1};
    return events_are_faster(is_double, shape, input, sizes[2], places);
}

template <class T>
py::array_t<int64_t> count_spikes(const py::array_t<T, py::array::c_style>& spikes, int threads) {
    const int64_t steps = spikes.shape(0), batch = spikes.shape(1), neurons = spikes.shape(2);
    py::array_t<int64_t> counts({int64_t(2), neurons});
    const Block<int64_t> partials(count_groups(batch) * 2 * neurons);
    const SpikeCounts<T> p = {steps, batch, neurons, threads, spikes.data(), partials.data(), counts.mutable_data()};
    const ReleasedGil release;
    kernels().of<T>().count_spikes(p);
    return counts;
}

}  // namespace
}  // namespace srcell

void bind_layer(pybind11::module_& m) {
    using namespace srcell;
    using namespace pybind11::literals;
    const py::class_<ScanShape> shape(m, "_Shape");  // Layer.shape, which Python passes on to srcell._cuda
    py::list parameters;
    for (const ParameterRow& row : kParameterTable)
        parameters.append(py::make_tuple(row.name, row.standard, row.least, row.most, row.divides, row.least_learnt,
                                         row.most_learnt, row.full_gradient, row.version));
    m.attr("parameters") = py::tuple(parameters);
    py::class_<Layer>(m, "Layer")
        .def_readonly("shape", &Layer::shape)
        .def_property_readonly("turns", &Layer::turns)
        .def_readwrite("device_turn", &Layer::device_turn);
    py::class_<EventRows>(m, "EventRows")
        .def(py::init([](Address offsets, Address indices, Address values, int64_t count, int64_t inputs) {
                 return EventRows{offsets, indices, values, count, inputs};
             }),
             "offsets"_a, "indices"_a, "values"_a, "count"_a, "inputs"_a);
    py::class_<DenseRows>(m, "DenseRows")
        .def(py::init<bool, const Sizes&, Address, Address, Address>(), "is_double"_a, "sizes"_a, "lengths"_a,
             "elements"_a, "mask"_a);
    m.def("takes_events", &takes_events, "is_double"_a, "sizes"_a, "lengths"_a, "input"_a, "places"_a);
    m.def("count_spikes", &count_spikes<float>, py::arg("spikes").noconvert(), "threads"_a);
    m.def("count_spikes", &count_spikes<double>, py::arg("spikes").noconvert(), "threads"_a);
}
