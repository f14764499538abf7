// Fuzz target: the device code of the CUDA kernels, run on the host. It gives the bits of the CPU's scalar table on
// given currents (half precision too), on event rows and on masks; in altered rows, entries out of range are no events.
#include "../cpp/device_problem.h"
#include "problem.h"

using namespace srcell;

namespace {

const Card& card_of(Input& in) { return kCards[in.below(3)]; }

template <class T>
bool scans_agree(Input& in) {
    const CellOptions o = cell_options(in);
    CellInputs<T> cell(o, in.bytes(4));
    spoil(in, cell);
    const Array<T> current = input_current(in, cell);
    const bool backward = !in.rarely(64);
    const Result<T> expected = scan(*kernels_scalar(), cell, current, backward, 1, kPoison);
    CHECK(scan(card_of(in), cell, current, backward, 1, kOtherPoison) == expected);
    return current.size();
}

// Rounds numbers to half precision; returns them as they are stored.
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

// Half-precision currents give the results of the same values in float32; their gradients are rounded to half, as are
// spikes that follow them.
template <class Half>
bool half_scans_agree(Input& in, Element element) {
    const CellOptions o = cell_options(in);
    CellInputs<float> cell(o, in.bytes(4));
    spoil(in, cell);
    Array<float> current = input_current(in, cell);
    const auto any = in.byte();
    const bool follow = any & 1;
    Array<Half> stored = as_half<Half>(current);
    if (any > 250)
        for (int64_t k = 0; k < current.size(); k += 7) stored[k].bits = static_cast<uint16_t>(in.bytes(2));
    current = as_float(stored);
    Array<Half> spikes(current.size(), kOtherPoison), grad_stored(current.size(), kOtherPoison), grad_spikes(0);
    if (follow) grad_spikes = as_half<Half>(cell.grad_spikes);
    ScanCall<float> whole(cell, current, true, kPoison);
    whole.run(*kernels_scalar(), 1);
    if (follow) as_half<Half>(whole.out.spikes);
    as_half<Half>(whole.grad_current);
    CellOutputs<float> out(cell, kOtherPoison);
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
    device::Queue queue = card_of(in).queue();
    device::scan_forward(queue, forward);
    device::scan_backward(queue, backward);
    if (follow) out.spikes = as_float(spikes);
    Result<float> expected, got;
    for (const auto& [result, of] : {std::pair(&expected, &whole.out), std::pair(&got, &out)}) {
        of->add_forward(*result);
        of->add_backward(*result);
    }
    expected.add(whole.grad_current);
    got.add(as_float(grad_stored));
    CHECK(got == expected);
    return current.size();
}

template <class T>
void altered_rows_are_survived(const Card& card, const CellInputs<T>& cell, const EventRows<T>& rows,
                               const Array<T>& weight) {
    const CellOptions& o = cell.o;
    const Array<T> none(0);
    const Result<T> expected =
        run(*kernels_scalar(), cell, as_counted(rows), weight, {false, false, false}, 1, kPoison);
    const Array<T> weight_t = transposed(weight, o.neurons, rows.inputs);
    CellOutputs<T> out(cell, kOtherPoison);
    device::Queue queue = card.queue();
    device::events_forward(
        queue, DeviceEventsForward<T>{
                   out.forward(1), {rows.events(), nullptr, nullptr}, weight_t.data(), nullptr, nullptr, false});
    Result<T> got;
    out.add_forward(got);
    CHECK(got == expected);
    // An event in two rows is sorted into one of them only: here it suffices that nothing outside is touched.
    const SortedEvents sorted(card, cell.shape(1), rows.events(), int32_t(0));
    Array<T> grad_current(o.steps * out.plane(), kOtherPoison), grad_values(rows.indices.size());
    const WeightGradient<T> gradient = {card, cell.shape(1), rows.events(), grad_current, kOtherPoison};
    gradient.by_keys(rows.values, int32_t(0));
    gradient.by_columns();
    device::event_dots(queue, DeviceEventDots<T>{o.neurons, rows.events(), sorted.found.data(), weight_t.data(),
                                                 grad_current.data(), grad_values.data()});
}

template <class T>
void dots_agree(const Card& card, const CellInputs<T>& cell, const EventRows<T>& rows, const Array<T>& weight_t,
                const Array<T>& grad_current) {
    Result<T> expected = dots(*kernels_scalar(), cell, rows, weight_t, grad_current, 1, kPoison), got;
    expected.all.resize(static_cast<size_t>(rows.indices.size()));
    const SortedEvents sorted(card, cell.shape(1), rows.events(), int64_t(0));
    Array<T> grad_values(rows.indices.size(), kOtherPoison);
    device::Queue queue = card.queue();
    device::event_dots(queue, DeviceEventDots<T>{cell.o.neurons, rows.events(), sorted.found.data(), weight_t.data(),
                                                 grad_current.data(), grad_values.data()});
    got.add(grad_values);
    CHECK(got == expected);
}

template <class T>
bool passes_agree(Input& in) {
    const CellOptions o = cell_options(in);
    const int64_t inputs = input_count(in, o);
    const auto seed = in.bytes(4);
    const auto bits = in.byte();
    const Wanted wanted = {(bits & 3) != 3, (bits & 4) != 0, (bits & 8) != 0};
    CellInputs<T> cell(o, seed);
    spoil(in, cell);
    const Card& card = card_of(in);
    EventRows<T> rows(o, inputs, bits & 16, cell.numbers);
    Array<T> weight = cell.numbers.template array<T>(o.neurons * inputs);
    in.spoil(weight);
    in.spoil(rows.values);
    if (in.rarely(64)) {
        corrupt(in, rows);
        altered_rows_are_survived(card, cell, rows, weight);
        return false;
    }
    if (bits & 32) {
        // Event rows that a dense input can have: each event once, in order, and none of value 0.
        const EventRows<T> tidy = rows.tidy();
        const Result<T> expected = run(*kernels_scalar(), cell, tidy, weight, wanted, 1, kPoison);
        CHECK(run_on(card, cell, tidy, weight, wanted, true, kOtherPoison) == expected);
    } else {
        const Result<T> expected = run(*kernels_scalar(), cell, rows, weight, wanted, 1, kPoison);
        CHECK(run_on(card, cell, rows, weight, wanted, false, kOtherPoison) == expected);
        dots_agree(card, cell, rows, transposed(weight, o.neurons, inputs), cell.plane(o.steps));
    }
    return o.steps && o.batch && o.neurons;
}

bool encoders_agree(Input& in) {
    const int64_t samples = in.size(3), pixels = in.size(140), steps = in.size(20), prefix = in.below(4);
    Array<float> images(samples * pixels);
    Array<int64_t> index(samples);
    Numbers numbers(in.bytes(4));
    const uint64_t seed = in.bytes(8);
    double gain = in.rarely(96) ? in.real<double>() : 0.6;
    if (!std::isfinite(gain) || gain < 0) gain = 0.25;
    for (float& x : images)
        x = numbers.below(3) ? static_cast<float>(numbers.below(1 << 24)) * 0x1p-24f
                             : static_cast<float>(numbers.below(2));
    for (int64_t& i : index) i = in.integer<int64_t>(numbers.below(1 << 30));
    const Card& card = card_of(in);
    const bool thinned = in.bit();
    CHECK(encode_on(card, images, index, pixels, steps, prefix, gain, seed, thinned) ==
          encode_on_cpu(images, index, pixels, steps, prefix, gain, seed, thinned));
    return samples && pixels && steps;
}

bool device_agrees(Input& in) {
    switch (in.byte() % 9) {
        case 0:
            return scans_agree<float>(in);
        case 1:
            return scans_agree<double>(in);
        case 2:
            return half_scans_agree<device::Float16>(in, Element::float16);
        case 3:
            return half_scans_agree<device::BFloat16>(in, Element::bfloat16);
        case 4:
            return encoders_agree(in);
        case 5:
        case 6:
            return passes_agree<double>(in);
        default:
            return passes_agree<float>(in);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("device", data, size, device_agrees);
}
