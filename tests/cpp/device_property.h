// Properties of the device code of the CUDA kernels, run on the host, which the fuzz target and the test check. The
// device code gives the bits of the CPU's scalar table of kernels on given currents (half precision too), on event rows
// and on masks. In altered rows, entries out of range do not count as events.
#pragma once

#include "device_problem.h"

namespace srcell {

template <class T>
bool scans_agree(Input& in, const CellOptions& o) {
    CellInputs<T> cell(in, o, in.bytes(4));
    const Array<T> current = input_current(in, cell);
    const bool backward = !in.rarely(64);
    ScanCall<T> on_cpu(cell, current, backward, kPoison);
    const Result<T> expected = on_cpu.run(*kernels_scalar(), 1);
    for (const Card& card : cards(in)) {
        ScanCall<T> call(cell, current, backward, kOtherPoison);
        CHECK(call.run(card, 1) == expected && same(call.checkpoints, on_cpu.checkpoints));
        check_padding(clamped(o), call.checkpoints, states_of(o.resonant), kSegment);
    }
    return current.size();
}

// Rounds numbers to half precision in place; also returns them as stored halves.
template <class Half>
Array<Half> as_half(Array<float>& numbers) {
    Array<Half> stored(numbers.size());
    for (int64_t k = 0; k < numbers.size(); ++k) {
        device::put(&stored[k], {numbers[k]});
        numbers[k] = device::get(&stored[k]).x;
    }
    return stored;
}

template <class Half>
Array<float> as_float(const Array<Half>& stored) {
    Array<float> numbers(stored.size());
    for (int64_t k = 0; k < stored.size(); ++k) numbers[k] = device::get(&stored[k]).x;
    return numbers;
}

// Half-precision currents give the results of the same values in float32; the gradients of the currents are rounded to
// half, and so are spikes that have the currents' type.
template <class Half>
bool half_scans_agree(Input& in, const CellOptions& o, Element element) {
    CellInputs<float> cell(in, o, in.bytes(4));
    Array<float> current = input_current(in, cell);
    const auto any = in.byte();
    const bool follow = any & 1;
    Array<Half> stored = as_half<Half>(current);
    if (any > 250)
        for (int64_t k = 0; k < current.size(); k += 7) stored[k].bits = static_cast<uint16_t>(in.bytes(2));
    current = as_float(stored);
    Array<Half> grad_spikes(0);
    if (follow) grad_spikes = as_half<Half>(cell.grad_spikes);
    ScanCall<float> whole(cell, current, true, kPoison);
    whole.run(*kernels_scalar(), 1);
    if (follow) as_half<Half>(whole.out.spikes);
    as_half<Half>(whole.grad_current);
    Result<float> expected;
    whole.out.add_forward(expected);
    whole.out.add_backward(expected);
    expected.add(whole.grad_current);
    for (const Card& card : cards(in)) {
        CellOutputs<float> out(cell, kOtherPoison);
        Array<Half> spikes(current.size(), kOtherPoison), grad_stored(current.size(), kOtherPoison);
        Array<float> checkpoints(whole.checkpoints.size(), kOtherPoison);
        DeviceScanForward<float> forward = {out.forward(1), stored.data(), element, nullptr, checkpoints.data()};
        DeviceScanBackward<float> backward = {out.backward(1), stored.data(),      element,
                                              nullptr,         checkpoints.data(), grad_stored.data()};
        if (follow) {
            forward.half_spikes = spikes.data();
            backward.half_grad_spikes = grad_spikes.data_if(o.grad_spikes);
            forward.spikes = nullptr;
            backward.grad_spikes = nullptr;
        }
        device::Queue queue = card.queue();
        device::scan_forward(queue, forward);
        device::scan_backward(queue, backward);
        if (follow) out.spikes = as_float(spikes);
        Result<float> got;
        out.add_forward(got);
        out.add_backward(got);
        got.add(as_float(grad_stored));
        CHECK(got == expected);
    }
    return current.size();
}

template <class T>
void altered_rows_stay_within_bounds(const Card& card, const CellInputs<T>& cell, const EventRows<T>& rows,
                                     const Array<T>& weight) {
    const CellOptions& o = cell.o;
    const int64_t count = rows.indices.size();
    const Result<T> expected =
        run(*kernels_scalar(), cell, rows.as_read_by_device(), weight, {false, false, false}, 1, kPoison);
    const Array<T> weight_t = transposed(weight, o.neurons, rows.inputs);
    CellOutputs<T> out(cell, kOtherPoison);
    Array<T> trace = out.plane(o.steps), checkpoints = out.plane(segments(o.steps) * (states_of(o.resonant) - 1));
    device::Queue queue = card.queue();
    device::events_forward(
        queue, DeviceEventsForward<T>{
                   {out.forward(1), trace.data(), checkpoints.data(), true}, weight_t.data(), rows.events()});
    Result<T> got;
    out.add_forward(got);
    CHECK(got == expected);
    // An event in two rows is sorted into only one of them: here it suffices that nothing outside is touched, and that
    // gradients of finite numbers are not NaN.
    Numbers numbers(7);
    const Array<T> values = numbers.array<T>(count), grad_current = numbers.array<T>(o.steps * o.plane());
    const Array<T> finite_t = numbers.array<T>(weight.size());
    const WeightGradient<T> gradient = {card, cell.shape(1), rows.events(), grad_current, kPoison};
    const SortedByKey sorted(card, cell.shape(1), rows.events(), int32_t(0));
    Array<T> grad_values(count);
    device::event_dots(queue, DeviceEventDots<T>{o.neurons, rows.events(), sorted.found.data(), finite_t.data(),
                                                 grad_current.data(), grad_values.data()});
    Array<T> by_keys = gradient.by_keys(values, int32_t(0)), by_columns = gradient.by_columns();
    for (Array<T>* x : {&by_keys, &by_columns, &grad_values})
        for (const T grad : *x) CHECK(grad == grad);
}

template <class T>
void dots_agree(const Card& card, const CellInputs<T>& cell, const EventRows<T>& rows, const Array<T>& weight_t,
                const Array<T>& grad_current) {
    Result<T> expected = dots(*kernels_scalar(), cell, rows, weight_t, grad_current, 1, kPoison), got;
    expected.all.resize(static_cast<size_t>(rows.indices.size()));
    const SortedByKey sorted(card, cell.shape(1), rows.events(), int64_t(0));
    Array<T> grad_values(rows.indices.size(), kOtherPoison);
    device::Queue queue = card.queue();
    device::event_dots(queue, DeviceEventDots<T>{cell.o.neurons, rows.events(), sorted.found.data(), weight_t.data(),
                                                 grad_current.data(), grad_values.data()});
    got.add(grad_values);
    CHECK(got == expected);
}

// Calls alter(rows), which returns whether it made the rows invalid.
template <class T, class Alter>
bool passes_agree(Input& in, const CellOptions& o, int64_t inputs, Alter alter) {
    const auto seed = in.bytes(4);
    const auto bits = in.byte();
    const Wanted wanted = {(bits & 3) != 3, (bits & 4) != 0, (bits & 8) != 0};
    CellInputs<T> cell(in, o, seed);
    const std::vector<Card> all = cards(in);
    EventRows<T> rows(o, inputs, bits & 16, cell.numbers);
    Array<T> weight = cell.numbers.template array<T>(o.neurons * inputs);
    in.spoil(weight);
    in.spoil(rows.values);
    const bool altered = alter(rows);
    if (altered)
        for (const Card& card : all) altered_rows_stay_within_bounds(card, cell, rows, weight);
    for (const bool masked : {false, true}) {
        if (altered || (masked != ((bits & 32) != 0) && !in.thorough())) continue;
        // A dense input has each event once, in order, and none of value 0.
        if (masked) rows = rows.as_of_dense_input();
        const Result<T> expected = run(*kernels_scalar(), cell, rows, weight, wanted, 1, kPoison);
        const Array<T> weight_t = transposed(weight, o.neurons, inputs), grad_current = cell.plane(o.steps);
        for (const Card& card : all) {
            CHECK(run_on(card, cell, rows, weight, wanted, masked, kOtherPoison) == expected);
            if (!masked) dots_agree(card, cell, rows, weight_t, grad_current);
        }
    }
    return !altered && !o.empty();
}

}  // namespace srcell
