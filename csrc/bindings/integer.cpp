// The kernels of integer neurons, in the compiled module srcell._core: turns arguments into structs and releases the
// GIL. core.cpp calls bind_integer().
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "arguments.h"

namespace srcell {
namespace {

// The events of a call: as given, or the nonzero elements of a dense input (T, B, K).
class Input {
  public:
    Input(const IntegerLayer& layer, const EventRows* given, Address dense, int64_t inputs) {
        if (given) {
            rows_ = *given;
            return;
        }
        listed_ = list_events<float>(layer.shape, inputs, dense);
        if (listed_->events().values) value_error("input: expected 0 and 1, got other values");
        rows_ = rows_of(listed_->events());
    }
    const EventRows& rows() const { return rows_; }

  private:
    EventRows rows_ = {};
    std::optional<ListedEvents<float>> listed_;
};

// Spikes are float32 if `floats`, otherwise uint8. Returns how often an i was clamped.
int64_t integer_forward(const IntegerLayer& layer, const IntegerOutputs& outputs, bool floats, const EventRows* given,
                        Address dense, int64_t inputs, Address weight, Address scale, double rho, Address slopes) {
    const Input input(layer, given, dense, inputs);
    const EventRows& rows = input.rows();
    IntegerForward p = {};
    p.shape = layer.shape;
    p.cell = layer.cell;
    p.events = rows.of<float>();
    const int64_t neurons = p.shape.neurons;
    const Block<int16_t> packed(event_tiles(neurons) * packed_rows(rows.inputs, rows.count) *
                                integer_tile_width(neurons));
    p.weight = pointer<const int16_t>(weight);
    p.packed_weight = packed.data();
    p.i0 = layer.before(0);
    p.h0 = layer.before(1);
    p.hs0 = layer.before(2);
    p.spikes = floats ? nullptr : pointer<uint8_t>(outputs[0]);
    p.float_spikes = floats ? pointer<float>(outputs[0]) : nullptr;
    p.i = pointer<int16_t>(outputs[1]);
    p.h = pointer<int16_t>(outputs[2]);
    p.hs = pointer<int16_t>(outputs[3]);
    p.slopes = pointer<float>(slopes);
    p.scale = pointer<const float>(scale);
    p.rho = static_cast<float>(rho);
    int64_t clamped = 0, invalid;
    p.clamped = &clamped;
    {
        const ReleasedGil release;
        invalid = kernels().integer_forward(p);
    }
    if (invalid >= 0) refuse_sample(rows, p.shape, invalid);
    return clamped;
}

void integer_backward(const IntegerLayer& layer, const EventRows* given, Address dense, int64_t inputs, Address slopes,
                      Address grad_spikes, Address grad_current, Address grad_weight) {
    const Input input(layer, given, dense, inputs);
    const EventRows& rows = input.rows();
    IntegerBackward p = {};
    p.shape = layer.shape;
    p.events = rows.of<float>();
    p.alpha = integer_alpha(layer.cell);
    const int64_t batch = p.shape.batch, neurons = p.shape.neurons;
    const int64_t weights = event_tiles(neurons) * rows.inputs * event_tile_width(neurons);
    const Block<float> partials(grad_weight ? event_groups(batch, neurons) * weights : 0);
    p.slopes = pointer<const float>(slopes);
    p.grad_spikes = pointer<const float>(grad_spikes);
    p.grad_current = pointer<float>(grad_current);
    p.grad_weight = pointer<float>(grad_weight);
    p.weight_partials = partials.data();
    int64_t invalid;
    {
        const ReleasedGil release;
        invalid = kernels().integer_backward(p);
    }
    if (invalid >= 0) refuse_sample(rows, p.shape, invalid);
}

}  // namespace
}  // namespace srcell

void bind_integer(pybind11::module_& m) {
    using namespace srcell;
    using namespace pybind11::literals;
    py::list constants;
    for (const IntegerConstant& constant : kIntegerConstants)
        constants.append(py::make_tuple(constant.name, constant.standard));
    m.attr("integer_constants") = py::tuple(constants);
    m.def("check_integer_cell", [](const std::vector<int64_t>& cell) { integer_cell_of(cell); }, "cell"_a);
    py::class_<IntegerLayer>(m, "IntegerLayer")
        .def(py::init([](bool on_host, const Sizes& sizes, Address lengths, int threads,
                         const std::vector<int64_t>& cell, std::vector<Address> state) {
                 return IntegerLayer{make_shape(sizes, lengths, threads, on_host), integer_cell_of(cell),
                                     std::move(state)};
             }),
             "on_host"_a, "sizes"_a, "lengths"_a, "threads"_a, "cell"_a, "state"_a)
        .def_readonly("shape", &IntegerLayer::shape);
    m.def("integer_forward", &integer_forward, "layer"_a, "outputs"_a, "floats"_a, "rows"_a, "input"_a, "inputs"_a,
          "weight"_a, "scale"_a, "rho"_a, "slopes"_a);
    m.def("integer_backward", &integer_backward, "layer"_a, "rows"_a, "input"_a, "inputs"_a, "slopes"_a,
          "grad_spikes"_a, "grad_current"_a, "grad_weight"_a);
}
