// Fuzz target: the event kernels of every ISA, on batches of which some were altered. They return the first invalid
// sample, or else what the scan of the events' currents gives, and the same bits in all ISAs.
#include "problem.h"

using namespace srcell;

namespace {

template <class T>
Result<T> dots_of(const Kernels& kernels, const CellInputs<T>& cell, const EventRows<T>& rows, const Array<T>& weight_t,
                  const Array<T>& grad_current, int threads, int poison, int64_t invalid) {
    Array<T> values(rows.indices.size(), poison), cells(cell.o.steps * cell.o.batch * rows.inputs, poison);
    EventDots<T> p = {cell.shape(threads), rows.events(), weight_t.data(), grad_current.data(), nullptr, nullptr};
    Result<T> result;
    p.grad_values = values.data();
    CHECK(call_dots(kernels, p) == invalid);
    if (invalid < 0) result.add(values);
    p.grad_values = nullptr;
    p.grad_input = cells.data();
    if (!p.grad_input) return result;
    CHECK(call_dots(kernels, p) == invalid);
    if (invalid < 0) result.add(cells);
    return result;
}

template <class T>
bool passes_agree(Input& in) {
    CellOptions wild = cell_options(in), o = clamped(wild);
    const int64_t inputs = input_count(in, o);
    const auto seed = in.bytes(4);
    const auto bits = in.byte();
    const Wanted wanted = {(bits & 3) != 3, (bits & 4) != 0, (bits & 8) != 0};
    const int threads = in.threads();
    CellInputs<T> cell(o, seed);
    spoil(in, cell);
    EventRows<T> rows(o, inputs, bits & 16, cell.numbers);
    Array<T> weight = cell.numbers.template array<T>(o.neurons * inputs);
    Array<T> weight_t = cell.numbers.template array<T>(o.neurons * inputs), grad_current = cell.plane(o.steps);
    in.spoil(weight);
    in.spoil(weight_t);
    in.spoil(grad_current);
    in.spoil(rows.values);
    if (in.rarely(64)) corrupt(in, rows);
    const int64_t invalid = first_invalid(o, rows), noticed = o.neurons ? invalid : -1;

    const EventRows<T> usable_rows = usable(o, rows);
    const Array<T> current = currents(o, usable_rows, weight);
    ScanCall<T> scanned(cell, current, wanted.save, kPoison);
    Result<T> expected = scanned.run(*kernels_scalar(), 1);
    if (wanted.save && !wanted.grad_current)
        expected.all.resize(expected.all.size() - static_cast<size_t>(current.size()));

    cell.lengths = Array<int64_t>(wild.lengths);
    Result<T> of_scalar, dots_of_scalar;
    for (const Kernels* kernels : available_kernels()) {
        const bool scalar = kernels == kernels_scalar();
        const int poison = scalar ? kPoison : kOtherPoison;
        EventsCall<T> call(cell, rows, wanted, poison);
        CHECK(call.forward(*kernels, weight, threads) == noticed);
        if (wanted.save) CHECK(call.backward(*kernels, threads) == noticed);
        const Result<T> dots =
            dots_of(*kernels, cell, rows, weight_t, grad_current, threads, poison, o.steps ? invalid : -1);
        if (scalar) dots_of_scalar = dots;
        CHECK(dots == dots_of_scalar);
        if (noticed >= 0) continue;
        Result<T> result;
        call.out.add_forward(result);
        if (wanted.save) {
            call.out.add_backward(result);
            result.add(call.grad_current);
        }
        CHECK(result == expected);
        if (!wanted.save) continue;
        for (const auto* x : {&call.grad_weight, &call.trace, &call.checkpoints}) result.add(*x);
        if (scalar) of_scalar = result;
        CHECK(result == of_scalar);
    }
    return invalid < 0 && current.size();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("events", data, size,
                [](Input& in) { return in.bit() ? passes_agree<double>(in) : passes_agree<float>(in); });
}
