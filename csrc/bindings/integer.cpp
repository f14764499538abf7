// The operators of integer neurons in the compiled module srcell._core, on the CPU, as calls.cpp has those of layers.
// core.cpp calls bind_integer().
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "calls.h"

namespace srcell {
namespace {

// Places in kIntegerSrc.
enum Row { kOffsetsRow, kIndicesRow, kInputRow, kWeightRow, kLatentRow, kScaleRow, kStateRow, kLengthsRow };

// What both operators have: the fields offsets, indices, input and weight, from `at` on; scale and lengths; and from
// the ninth field on steps, batch and cell.
class IntegerCall {
  public:
    explicit IntegerCall(const Way& way) : given_(way.reader()) {}

    IntegerLayer layer;
    EventRows rows = {};
    Address weight = 0, scale = 0;

    bool read(py::handle call, Py_ssize_t at, Py_ssize_t scale_at, Py_ssize_t lengths_at, py::handle state,
              int threads) {
        Letters& letters = given_.letters;
        const py::handle input = field(call, at + 2);
        Address elements = 0, lengths = 0;
        if (!read_sizes(call, 8, letters) || !read(kIntegerSrc[kWeightRow], field(call, at + 3), weight)) return false;
        const int64_t inputs = letters['K'];
        if (!read(kIntegerSrc[kOffsetsRow], field(call, at), rows.offsets) ||
            !read(kIntegerSrc[kIndicesRow], field(call, at + 1), rows.indices) ||
            !read(kIntegerSrc[kInputRow], input, elements) ||
            !read(kIntegerSrc[kScaleRow], field(call, scale_at), scale) ||
            !read(kIntegerSrc[kLengthsRow], field(call, lengths_at), lengths) ||
            field(call, at).is_none() != field(call, at + 1).is_none() || field(call, at).is_none() == input.is_none())
            return false;
        rows.count = input.is_none() ? letters['E'] : 0, rows.inputs = inputs;
        const Items of_state(state);
        std::vector<Address> before(state.is_none() ? 0 : static_cast<size_t>(of_state.size()));
        if (!before.empty() && before.size() != 3) return false;
        for (size_t k = 0; k < before.size(); ++k)
            if (!read(kIntegerSrc[kStateRow], of_state[static_cast<Py_ssize_t>(k)], before[k])) return false;
        std::vector<int64_t> cell;
        const Items constants(field(call, 10));
        for (Py_ssize_t k = 0; constants.valid && k < constants.size(); ++k) {
            int overflow = 0;
            if (!PyLong_Check(constants[k].ptr())) return false;
            cell.push_back(PyLong_AsLongLongAndOverflow(constants[k].ptr(), &overflow));
            if (overflow) return false;
        }
        const Sizes sizes = {letters['T'], letters['B'], letters['N']};
        layer = {make_shape(sizes, lengths, threads, true), integer_cell_of(cell), std::move(before)};
        check_state();
        if (input.is_none() || learns()) return true;
        listed_ = list_events<float>(layer.shape, inputs, elements);
        if (listed_->events().values) value_error("input: expected 0 and 1, got other values");
        rows = rows_of(listed_->events());
        return true;
    }

    bool read(const Argument& row, py::handle object, Address& address) { return given_.read(row, object, address); }
    bool describe(const Argument& row, py::handle object) {
        Tensor x;
        return given_.read(row, object, x, Form::kWhole, false);
    }

    bool learns() const { return given_.reader.learnt() > 0; }

  private:
    void check_state() const {
        const auto bounds = integer_bounds(layer.cell);
        const int64_t count = layer.shape.batch * layer.shape.neurons;
        for (size_t k = 0; k < layer.state.size() && count; ++k) {
            const int16_t* const x = layer.before(k);
            const auto [least, most] = std::minmax_element(x, x + count);
            if (*least < bounds[k].least || *most > bounds[k].most)
                value_error("state.", bounds[k].name, ": expected values in [", bounds[k].least, ", ", bounds[k].most,
                            "], got ", *least, " to ", *most);
        }
    }

    Arguments given_;
    std::optional<ListedEvents<float>> listed_;
};

// `call` has offsets, indices, input, weight, latent, scale, state, lengths, steps, batch, cell, rho, floats and save.
// Spikes are float32 if `floats`, otherwise uint8. Returns the outputs.
py::object integer_src(const py::handle call, const Way& way, int threads) {
    if (way.direct && is_watched()) return py::none();
    IntegerCall given(way);
    const bool floats = flag(field(call, 12)), save = flag(field(call, 13));
    if ((save && !(floats && !field(call, 5).is_none())) || !given.describe(kIntegerSrc[kLatentRow], field(call, 4)) ||
        !given.read(call, 0, 5, 7, field(call, 6), threads))
        return py::none();
    if (given.learns()) return py::bool_(false);
    IntegerForward p = {};
    p.shape = given.layer.shape;
    const auto [steps, batch, neurons, of_lengths, of_threads] = p.shape;
    Made made;
    const py::handle like = field(call, 3);
    const Address spikes = made.add(like, floats ? Number::kFloat32 : Number::kUInt8, {steps, batch, neurons});
    Address state[3];
    for (Address& one : state) one = made.add(like, Number::kInt16, {batch, neurons});
    auto* const clamped = pointer<int64_t>(made.add(like, Number::kInt64, {}));
    const Shape kept = save ? Shape{steps, batch, neurons} : Shape{0};
    const Address slopes = made.add(like, Number::kFloat32, kept);
    p.cell = given.layer.cell;
    const Block<int16_t> packed(event_tiles(neurons) * packed_rows(given.rows.inputs, given.rows.count) *
                                integer_tile_width(neurons));
    p.synapse = {given.rows.of<float>(), pointer<const int16_t>(given.weight), packed.data(), false};
    p.i0 = given.layer.before(0);
    p.h0 = given.layer.before(1);
    p.hs0 = given.layer.before(2);
    p.spikes = floats ? nullptr : pointer<uint8_t>(spikes);
    p.float_spikes = floats ? pointer<float>(spikes) : nullptr;
    p.i = pointer<int16_t>(state[0]);
    p.h = pointer<int16_t>(state[1]);
    p.hs = pointer<int16_t>(state[2]);
    p.slopes = save ? pointer<float>(slopes) : nullptr;
    p.scale = pointer<const float>(given.scale);
    p.rho = static_cast<float>(py::cast<double>(field(call, 11)));
    int64_t invalid;
    *clamped = 0;
    p.clamped = clamped;
    {
        const ReleasedGil release;
        invalid = kernels().integer_forward(p);
    }
    if (invalid >= 0) refuse_sample(given.rows, p.shape, invalid);
    return py::tuple(made.made);
}

// `call` has grad_spikes, offsets, indices, input, weight, scale, lengths, slopes, steps, batch, cell and output_mask.
// Returns the gradients of the currents and of the integer weights, None for each that is not wanted.
py::object integer_src_backward(const py::handle call, const Way& way, int threads) {
    if (way.direct && is_watched()) return py::none();
    IntegerCall given(way);
    if (field(call, 5).is_none() || !given.read(call, 1, 5, 6, py::none(), threads)) return py::none();
    IntegerBackward p = {};
    p.shape = given.layer.shape;
    const auto [steps, batch, neurons, of_lengths, of_threads] = p.shape;
    const Shape all = {steps, batch, neurons};
    Address grad_spikes = 0, slopes = 0;
    const py::handle like = field(call, 7);
    if (!given.read(kIntegerSrcBackward[0], field(call, 0), grad_spikes) ||
        !given.read(kIntegerSrcBackward[1], like, slopes))
        return py::none();
    if (given.learns()) return py::bool_(false);
    bool want_input, want_weight;
    if (!read_flags(field(call, 11), want_input, want_weight)) return py::none();
    Made made;
    const Address grad_current = want_input ? made.add(like, Number::kFloat32, all) : made.none();
    const Address grad_weight =
        want_weight ? made.add(like, Number::kFloat32, {neurons, given.rows.inputs}) : made.none();
    p.alpha = integer_alpha(given.layer.cell);
    const int64_t weights = event_tiles(neurons) * given.rows.inputs * event_tile_width(neurons);
    const Block<float> partials(want_weight ? event_groups(batch, neurons) * weights : 0);
    p.slopes = pointer<const float>(slopes);
    p.grad_spikes = pointer<const float>(grad_spikes);
    p.grad_current = pointer<float>(grad_current);
    p.synapse = {given.rows.of<float>(), pointer<float>(grad_weight), partials.data()};
    int64_t invalid;
    {
        const ReleasedGil release;
        invalid = kernels().integer_backward(p);
    }
    if (invalid >= 0) refuse_sample(given.rows, p.shape, invalid);
    return py::tuple(made.made);
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
        .def(py::init(
                 [](const Sizes& sizes, Address lengths, const std::vector<int64_t>& cell, std::vector<Address> state) {
                     return IntegerLayer{make_shape(sizes, lengths, 1, false), integer_cell_of(cell), std::move(state)};
                 }),
             "sizes"_a, "lengths"_a, "cell"_a, "state"_a)
        .def_readonly("shape", &IntegerLayer::shape);
    m.def("integer_src", &integer_src, "call"_a, "way"_a, "threads"_a);
    m.def("integer_src_backward", &integer_src_backward, "call"_a, "way"_a, "threads"_a);
}
