// Layers in the compiled module srcell._core, on the CPU: an entry for each synapse, and one for its gradient, which
// read and check the record of a call, make its outputs and run the kernel. The kernels of the operators call them, and
// layers do so directly. A call that is not valid is refused by returning None, as is a direct one that torch's
// dispatcher must see: Python, which checks fake tensors in the same way, then says what is wrong. core.cpp calls
// bind_calls().
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "calls.h"
#include "layer.h"

namespace srcell {
namespace {

// The weight of a synapse: (N, K), or that of a convolution.
struct Synapse {
    Tensor weight;
    std::optional<OwnConvolution> convolution;

    // Reads a weight by the row of a linear one; `sizes` has the numbers of a convolution, or none. N and K are then
    // known.
    bool read(Arguments& given, const Argument& row, py::handle object, py::handle sizes) {
        const Items numbers(sizes);
        if (!numbers.valid) return false;
        if (!numbers.size()) return given.read(row, object, weight);
        ConvolutionSizes made;
        if (!given.read(kKernel, object, weight) || numbers.size() != static_cast<Py_ssize_t>(made.size()))
            return false;
        for (size_t k = 0; k < made.size(); ++k) made[k] = PyLong_AsLongLong(numbers[static_cast<Py_ssize_t>(k)].ptr());
        if (PyErr_Occurred()) throw py::error_already_set();
        try {
            const auto& shape = weight.shape;
            convolution.emplace(made, WeightShape{shape[0], shape[1], shape[2], shape[3]}, int64_t(1) << 31);
        } catch (const ConvolutionFault& fault) {
            value_error(fault.of_weight ? "weight: " : "convolution: ", fault.what());
        }
        Letters& letters = given.letters;
        const bool fits = letters['K'] < 0 || letters['K'] == inputs();
        letters['N'] = neurons(), letters['K'] = inputs();
        return fits;
    }

    Maybe<const Convolution> map() const { return convolution ? &convolution->view() : nullptr; }
    int64_t neurons() const { return map() ? map()->neurons() : weight.shape[0]; }
    int64_t inputs() const { return map() ? map()->inputs() : weight.shape[1]; }
    Address address() const { return address_of(weight.data); }
    Shape shape() const {
        const auto& of = weight.shape;
        return map() ? Shape{of[0], of[1], of[2], of[3]} : Shape{of[0], of[1]};
    }
};

// Reads the fields offsets, indices, values and weight, which begin at the field `at`; T and B are known.
bool read_events(Arguments& given, const py::handle call, Py_ssize_t at, py::handle sizes, EventRows& events,
                 Synapse& synapse) {
    if (!synapse.read(given, kSrcEvents[3], field(call, at + 3), sizes) ||
        !given.read(kSrcEvents[0], field(call, at), events.offsets) ||
        !given.read(kSrcEvents[1], field(call, at + 1), events.indices) ||
        !given.read(kSrcEvents[2], field(call, at + 2), events.values))
        return false;
    events.count = given.letters['E'], events.inputs = given.letters['K'];
    return true;
}

// Whether the layer and its synapse go together: a map of neurons has no recurrent weights.
bool fits(const LayerCall& layer, const Synapse& synapse) { return !synapse.map() || !layer.recurrent_weights; }

// The shape of the mask of a dense input. A convolution finds its events again instead.
Shape shape_of_mask(const LayerCall& layer, const Synapse& synapse) {
    Letters& letters = layer.call.letters;
    letters['R'] = synapse.map() ? 0 : layer.steps * layer.batch, letters['W'] = mask_words(synapse.inputs());
    return letters.shape(kKept[2]);
}

// Reads an input (T, B, K), or (B, K), and its weight, the fields from `at` on.
bool read_dense(Arguments& given, const py::handle call, Py_ssize_t at, py::handle sizes, const Way& way, Tensor& input,
                Synapse& synapse) {
    return given.read(kSrcDense[0], field(call, at), input, way.form_of(0)) &&
           synapse.read(given, kSrcDense[1], field(call, at + 1), sizes) && given.letters['K'] <= int64_t(1) << 31;
}

// Reads the mask of a dense input that a call of its backward operator has.
bool read_mask_of(const LayerCall& layer, const Synapse& synapse, py::handle call, Address& mask) {
    shape_of_mask(layer, synapse);
    return layer.call.read(kKept[2], field(call, 1 + kStates + 4), mask);
}

// Reads output_mask: flags of the synapse's gradients, and those of the layer's that are not made in any case.
bool read_mask(py::handle object, std::initializer_list<bool*> synapse, Wanted& wanted) {
    const Items items(object);
    constexpr Py_ssize_t kOthers = 3;  // weight_hh, factors_hh and past
    const auto count = static_cast<Py_ssize_t>(synapse.size());
    if (!items.valid || items.size() != count + kOthers + kParameters - 1) return false;
    Py_ssize_t k = 0;
    for (bool* const one : synapse) *one = flag(items[k++]);
    wanted.fill(true);
    for (const size_t at : {kOfLateral, kOfFactors, kOfState + kPast}) wanted[at] = flag(items[k++]);
    for (size_t at = kOfParameters + 1; at < wanted.size(); ++at) wanted[at] = flag(items[k++]);
    return true;
}

py::tuple with_layers(py::list made, LayerGradients& gradients) {
    gradients.settle();
    for (const py::handle one : gradients.made) made.append(one);
    return py::tuple(made);
}

constexpr py::size_t kMadeOutputs = 1 + kStates;  // in Results::made; what is saved stands behind them

// The tensors of a direct call that need a gradient, and for each its place among the results of the backward entry,
// where those of the synapse come first, and its place in output_mask, or -1 if it is made in any case.
struct Learnt {
    py::list tensors, places, flags;
    Py_ssize_t of_synapse = 0;

    void add_synapse(py::handle tensor) { add(tensor, of_synapse), ++of_synapse; }
    void add_layer(py::handle record) {
        const Items cell(field(record, kCell)), state(field(record, kState));
        add(field(record, kWeightHh), of_synapse + kOfLateral);
        add(field(record, kFactorsHh), of_synapse + kOfFactors);
        for (Py_ssize_t k = 0; state.valid && k < state.size(); ++k)
            add(state[k], of_synapse + kOfState + (k < states ? k : Py_ssize_t(kPast)));
        add(field(record, kBiasField), of_synapse + kOfParameters);
        for (Py_ssize_t k = 0; k < cell.size(); ++k) add(cell[k], of_synapse + kOfParameters + 1 + k);
    }

    Py_ssize_t states;  // of the layer, without the past

  private:
    void add(py::handle tensor, Py_ssize_t place) {
        if (tensor.is_none() || PyFloat_CheckExact(tensor.ptr()) || !requires_grad(tensor)) return;
        tensors.append(tensor), places.append(place), flags.append(flag_of(place - of_synapse));
    }
    Py_ssize_t flag_of(Py_ssize_t gradient) const {
        constexpr Py_ssize_t kPastAt = kOfState + kPast, kFirst = kOfParameters + 1;
        if (gradient <= Py_ssize_t(kOfFactors)) return of_synapse + gradient;
        if (gradient == kPastAt) return of_synapse + kOfState;
        return gradient < kFirst ? -1 : of_synapse + kOfState + 1 + gradient - kFirst;
    }
};

// What an entry returns: of an operator all tensors; of a direct call the spikes and the state, or if it learns the
// tensors spikes and state, those that are saved, and what stands in Learnt.
py::object answer(const LayerCall& layer, const Results& made, py::handle record, bool learns,
                  std::initializer_list<py::handle> synapse) {
    if (!layer.way.direct) return py::tuple(made.made);
    const bool resonant = layer.resonant(), delayed = layer.has_state(kPast);
    const Py_ssize_t states = states_of(resonant);
    py::tuple outputs(static_cast<py::size_t>(!learns ? states + delayed : 1 + states + delayed));
    py::size_t next = 0;
    for (py::size_t k = learns ? 0 : 1; k < kMadeOutputs; ++k)
        if (!made.made[k].is_none()) outputs[next++] = made.made[k];
    if (!learns) return py::make_tuple(made.made[0], new_state(outputs, resonant, delayed));
    Learnt learnt;
    learnt.states = states;
    for (const py::handle tensor : synapse) learnt.add_synapse(tensor);
    learnt.add_layer(record);
    return py::make_tuple(outputs, py::tuple(made.made[py::slice(kMadeOutputs, made.made.size(), 1)]),
                          py::tuple(learnt.tensors), py::tuple(learnt.places), py::tuple(learnt.flags));
}

// Whether torch's dispatcher must see a direct call.
bool is_for_dispatcher(const Way& way) { return way.direct && (is_watched() || autocasts()); }
bool is_for_dispatcher_backwards(const Way& way) { return way.direct && (is_watched() || gradients_enabled()); }

// `call` has the fields current, layer, save, trace_integrator and half_spikes.
py::object src(const py::handle call, const Way& way, int threads) {
    if (is_for_dispatcher(way)) return py::none();
    Arguments given(way.reader());
    Tensor current;
    if (!given.read(kSrc[0], field(call, 0), current, way.form_of(0))) return py::none();
    LayerCall layer(given, way);
    if (!layer.read(field(call, 1))) return py::none();
    const Layer checked = layer.checked(threads);
    const bool learns = given.reader.learnt() > 0;
    Results made = make_results(layer, field(call, 0));
    add_saved(made, layer, field(call, 0), flag(field(call, 2)) || learns, layer.recurrent_weights);
    const Address at = address_of(current.data);
    if (layer.recurrent_weights)
        traced_forward(checked, made.outputs, nullptr, 0, at, made.saved, flag(field(call, 3)) || layer.learns_cell);
    else
        scan_forward(checked, made.outputs, at, made.saved);
    return answer(layer, made, field(call, 1), learns, {field(call, 0)});
}

// `call` has the fields offsets, indices, values, weight, layer, steps, batch, save, trace_integrator and convolution.
py::object src_events(const py::handle call, const Way& way, int threads) {
    if (is_for_dispatcher(way)) return py::none();
    Arguments given(way.reader());
    Synapse synapse;
    EventRows rows;
    if (!read_sizes(call, 5, given.letters) || !read_events(given, call, 0, field(call, 9), rows, synapse))
        return py::none();
    const py::handle like = field(call, 3);
    LayerCall layer(given, way);
    if (!layer.read(field(call, 4)) || !fits(layer, synapse)) return py::none();
    const Layer checked = layer.checked(threads);
    const bool learns = given.reader.learnt() > 0;
    Results made = make_results(layer, like);
    add_saved(made, layer, like, flag(field(call, 7)) || learns, !synapse.map());
    if (synapse.map())
        convolution_forward(checked, made.outputs, {&rows, 0}, *synapse.map(), synapse.address(), made.saved);
    else
        traced_forward(checked, made.outputs, &rows, synapse.address(), 0, made.saved,
                       flag(field(call, 8)) || layer.learns_cell);
    return answer(layer, made, field(call, 4), learns, {field(call, 2), like});
}

// Whether `x` names the dtype of torch's products; Python uses it.
bool is_product_dtype(const py::handle x) { return is_text(x, "") || is_text(x, "bfloat16") || is_text(x, "float16"); }

// `call` has the fields input, weight, layer, method, input_grad_at_events, save, trace_integrator, convolution and
// product_dtype.
// Returns False if the product is to be used.
py::object src_dense(const py::handle call, const Way& way, int threads) {
    if (is_for_dispatcher(way)) return py::none();
    Arguments given(way.reader());
    Tensor input;
    Synapse synapse;
    const py::handle like = field(call, 1), method = field(call, 3);
    if (!read_dense(given, call, 0, field(call, 7), way, input, synapse) || !is_product_dtype(field(call, 8)))
        return py::none();
    LayerCall layer(given, way);
    const bool chosen = is_text(method, "events"), product = is_text(method, "gemm");
    if ((!chosen && !product && !is_text(method, "auto")) || !layer.read(field(call, 2)) || !fits(layer, synapse))
        return py::none();
    const Layer checked = layer.checked(threads);
    if (product) return py::bool_(false);
    const Address elements = address_of(input.data);
    if (!chosen && !events_are_faster(layer.number == Number::kFloat64, checked.shape, elements, input.shape[2],
                                      synapse.map() ? synapse.map()->places() : 0))
        return py::bool_(false);
    const bool learns = given.reader.learnt() > 0, save = flag(field(call, 5)) || learns;
    Results made = make_results(layer, like);
    add_saved(made, layer, like, save, !synapse.map());
    const Address mask = save ? made.add(like, Number::kInt64, shape_of_mask(layer, synapse)) : 0;
    bool ones = false;
    if (synapse.map())
        convolution_forward(checked, made.outputs, {nullptr, elements}, *synapse.map(), synapse.address(), made.saved);
    else
        ones = dense_forward(checked, made.outputs, elements, input.shape[2], mask, synapse.address(), made.saved,
                             flag(field(call, 6)) || layer.learns_cell);
    if (save)
        made.made.append(py::bool_(ones));
    else
        made.none(), made.none();
    return answer(layer, made, field(call, 2), learns, {field(call, 0), like});
}

// The gradients of the outputs are the first fields of the calls below.
constexpr Py_ssize_t kGrads = 1 + kStates;

// `call` then has current, trace, checkpoints, layer and output_mask.
py::object src_backward(const py::handle call, const Way& way, int threads) {
    if (is_for_dispatcher_backwards(way)) return py::none();
    Arguments given(way.reader());
    Tensor current;
    const py::handle of_layer = field(call, kGrads + 3);
    const bool traced = !field(of_layer, kWeightHh).is_none();  // the currents are then not kept
    if (!given.read(kSrc[0], field(call, kGrads), current, Form::kWhole, !traced)) return py::none();
    LayerCall layer(given, way);
    Outputs grads = {};
    Saved saved = {};
    Wanted wanted;
    bool want_current = false;
    if (!layer.read(of_layer, true) || !layer.read_gradients(Items(call), kGrads, grads) ||
        !read_saved(layer, call, kGrads + 1, traced, saved) ||
        !read_mask(field(call, kGrads + 4), {&want_current}, wanted))
        return py::none();
    const Layer checked = layer.checked(threads);
    Made made;
    const py::handle like = field(of_layer, kBiasField);
    const Address grad_current = made.add(like, layer.number, layer.shape_of(0));
    LayerGradients gradients(layer, wanted, like);
    if (traced)
        traced_backward(checked, grads, gradients.at, nullptr, saved, grad_current, 0);
    else
        scan_backward(checked, grads, gradients.at, address_of(current.data), saved, grad_current);
    if (!want_current) made.made[0] = py::none();
    return with_layers(made.made, gradients);
}

// `call` then has offsets, indices, values, weight, trace, checkpoints, layer, steps, batch, output_mask and
// convolution.
py::object src_events_backward(const py::handle call, const Way& way, int threads) {
    if (is_for_dispatcher_backwards(way)) return py::none();
    Arguments given(way.reader());
    Synapse synapse;
    EventRows rows;
    if (!read_sizes(call, kGrads + 7, given.letters) ||
        !read_events(given, call, kGrads, field(call, kGrads + 10), rows, synapse))
        return py::none();
    LayerCall layer(given, way);
    Outputs grads = {};
    Saved saved = {};
    Wanted wanted;
    bool want_values, want_weight;
    if (!layer.read(field(call, kGrads + 6), true) || !fits(layer, synapse) ||
        !layer.read_gradients(Items(call), kGrads, grads) ||
        !read_saved(layer, call, kGrads + 4, !synapse.map(), saved) ||
        !read_mask(field(call, kGrads + 9), {&want_values, &want_weight}, wanted))
        return py::none();
    const Layer checked = layer.checked(threads);
    Made made;
    const py::handle like = field(call, kGrads + 3);
    const Address grad_values = want_values ? made.add(like, layer.number, {rows.count}) : made.none();
    const Address grad_weight = want_weight ? made.add(like, layer.number, synapse.shape()) : made.none();
    LayerGradients gradients(layer, wanted, like);
    if (synapse.map()) {
        convolution_backward(checked, grads, gradients.at, {&rows, 0}, *synapse.map(), synapse.address(), saved,
                             {grad_weight, grad_values, 0, false});
        return with_layers(made.made, gradients);
    }
    Tensor weight_t = {}, grad_current = {};
    if (want_values) {
        given.reader.read(given.reader.keep(transposed(like)), weight_t);
        given.reader.keep(new_tensor(like, layer.number, layer.shape_of(0), grad_current));
    }
    const Address current = address_of(grad_current.data);
    traced_backward(checked, grads, gradients.at, &rows, saved, current, grad_weight);
    if (want_values) event_dots(checked, rows, address_of(weight_t.data), current, grad_values, 0);
    return with_layers(made.made, gradients);
}

// `call` then has input, weight, trace, checkpoints, mask, ones, layer, method, input_grad_at_events, output_mask,
// convolution and product_dtype. By events, whatever the method. A product in another dtype is left to torch: in place
// of the input's gradient comes that of the currents.
py::object src_dense_backward(const py::handle call, bool ones, const Way& way, int threads) {
    if (is_for_dispatcher_backwards(way)) return py::none();
    Arguments given(way.reader());
    Tensor input;
    Synapse synapse;
    if (!read_dense(given, call, kGrads, field(call, kGrads + 10), {}, input, synapse) ||
        !is_product_dtype(field(call, kGrads + 11)))
        return py::none();
    const int64_t inputs = input.shape[2];
    LayerCall layer(given, way);
    Outputs grads = {};
    Saved saved = {};
    Wanted wanted;
    Address mask = 0;
    bool want_input, want_weight;
    if (!layer.read(field(call, kGrads + 6), true) || !fits(layer, synapse) ||
        !layer.read_gradients(Items(call), kGrads, grads) ||
        !read_saved(layer, call, kGrads + 2, !synapse.map(), saved) || !read_mask_of(layer, synapse, call, mask) ||
        !read_mask(field(call, kGrads + 9), {&want_input, &want_weight}, wanted))
        return py::none();
    const Layer checked = layer.checked(threads);
    Made made;
    const py::handle like = field(call, kGrads + 1);
    const bool at_events = want_input && flag(field(call, kGrads + 8));
    const bool leaves_product = want_input && !at_events && !synapse.map() && !is_text(field(call, kGrads + 11), "");
    if (leaves_product && way.direct) return py::none();
    const Shape of_input = way.one_step ? Shape{layer.batch, inputs} : Shape{layer.steps, layer.batch, inputs};
    const Address grad_current = leaves_product ? made.add(like, layer.number, layer.shape_of(0)) : 0;
    const Address grad_input = leaves_product ? 0 : want_input ? made.add(like, layer.number, of_input) : made.none();
    const Address grad_weight = want_weight ? made.add(like, layer.number, synapse.shape()) : made.none();
    LayerGradients gradients(layer, wanted, like);
    const Address elements = address_of(input.data);
    if (synapse.map()) {
        convolution_backward(checked, grads, gradients.at, {nullptr, elements}, *synapse.map(), synapse.address(),
                             saved, {grad_weight, 0, grad_input, at_events});
        return with_layers(made.made, gradients);
    }
    Tensor weight_t = {};
    if (at_events) given.reader.read(given.reader.keep(transposed(like)), weight_t);
    dense_backward(checked, grads, gradients.at, elements, inputs, mask, ones, saved, synapse.address(),
                   address_of(weight_t.data), grad_current, grad_input, grad_weight);
    return with_layers(made.made, gradients);
}

// Whether the tensors of a call, its first fields, are plain ones on a CPU and as the table says; Python looks at
// others.
bool fits_table(const std::string& name, py::handle call) {
    for (const Rows& rows : kTable) {
        if (name != rows.name) continue;
        Arguments given(Reader::kPlain);
        Tensor x;
        for (const bool leads : {true, false})
            for (size_t k = 0; k < rows.count; ++k)
                if (((rows.rows[k].presence & kLeads) != 0) == leads &&
                    !given.read(rows.rows[k], field(call, static_cast<Py_ssize_t>(k)), x, Form::kWhole, false))
                    return false;
        return true;
    }
    return false;
}

// The layer of a call on a GPU, whose tensors are checked, contiguous, and kept by the caller.
Layer layer_on_gpu(const py::handle record, const Sizes& sizes, bool is_double, bool backward) {
    Arguments given(Reader::kAnywhere);
    given.number = is_double ? Number::kFloat64 : Number::kFloat32;
    given.letters['T'] = sizes[0], given.letters['B'] = sizes[1], given.letters['N'] = sizes[2];
    LayerCall layer(given, {});
    layer.on_host = false;  // Python has put in place what the layer computes with
    if (!layer.read(record, backward) || given.reader.copied())
        throw std::runtime_error("srcell: expected contiguous tensors that lie in the memory of one device");
    return layer.checked(1);
}

}  // namespace
}  // namespace srcell

void bind_calls(pybind11::module_& m) {
    using namespace srcell;
    using namespace pybind11::literals;
    py::class_<Way>(m, "Way")
        .def(py::init([](bool direct, bool one_step, bool stacked) { return Way{direct, one_step, stacked}; }),
             "direct"_a, "one_step"_a, "stacked"_a)
        .def_readonly("one_step", &Way::one_step)
        .def_readonly("stacked", &Way::stacked);
    m.def("src", &src, "call"_a, "way"_a, "threads"_a);
    m.def("src_events", &src_events, "call"_a, "way"_a, "threads"_a);
    m.def("src_dense", &src_dense, "call"_a, "way"_a, "threads"_a);
    m.def("fits_table", &fits_table, "name"_a, "call"_a);
    m.def("layer_on_gpu", &layer_on_gpu, "layer"_a, "sizes"_a, "is_double"_a, "backward"_a);
    m.def("src_backward", &src_backward, "call"_a, "way"_a, "threads"_a);
    m.def("src_events_backward", &src_events_backward, "call"_a, "way"_a, "threads"_a);
    m.def("src_dense_backward", &src_dense_backward, "call"_a, "ones"_a, "way"_a, "threads"_a);
}
