// Fuzz target: the check of event rows, on rows with any fault or none, against the definition in event_rows.h.
#include <algorithm>

#include "../../csrc/cpu/event_rows.h"
#include "input.h"

using namespace srcell;

namespace {

// The first fault: one kind after the other is searched for, in the documented order.
FoundFault first_fault(const UncheckedEvents& p) {
    for (int64_t b = 0; p.lengths && b < p.batch; ++b)
        if (p.lengths[b] < 0 || p.lengths[b] > p.steps) return {Fault::kLength, b};
    const int64_t rows = p.batch * p.steps;
    if (p.offsets[0] != 0) return {Fault::kFirstOffset, 0};
    for (int64_t row = 1; row <= rows; ++row)
        if (p.offsets[row] < p.offsets[row - 1]) return {Fault::kDescent, row};
    if (p.offsets[rows] != p.events) return {Fault::kLastOffset, rows};
    for (int64_t e = 0; e < p.events; ++e)
        if (p.indices[e] < 0 || p.indices[e] >= p.inputs) return {Fault::kIndex, e};
    for (int64_t e = 0; e < p.events; ++e)
        if ((p.values_f32 && p.values_f32[e] != p.values_f32[e]) ||
            (p.values_f64 && p.values_f64[e] != p.values_f64[e]))
            return {Fault::kNan, e};
    for (int64_t b = 0; p.lengths && b < p.batch; ++b)
        if (p.offsets[b * p.steps + p.lengths[b]] != p.offsets[(b + 1) * p.steps]) return {Fault::kPastLength, b};
    return {Fault::kNone, 0};
}

// Change some elements.
template <class T, class Make>
void alter(Input& in, Array<T>& x, Make make) {
    if (!x.size() || !in.rarely(48)) return;
    for (int64_t k = 1 + in.below(3); k > 0; --k) {
        const int64_t at = in.below(x.size());
        x[at] = make(x[at]);
    }
}

bool faults_are_found(Input& in) {
    // Rarely enough rows for several threads; rarely huge sizes that need no memory because another size is 0.
    const bool large = in.rarely(1), empty = in.rarely(4);
    int64_t steps = in.size(large ? 3000 : 12), batch = in.size(large ? 16 : 6);
    const int64_t most = in.size(large ? 2 : 5), inputs = in.rarely(8) ? int64_t(1) << 31 : in.size(40);
    if (empty) (in.bit() ? steps : batch) = 0;
    Numbers numbers(in.bytes(4));
    Array<int64_t> offsets(batch * steps + 1);
    offsets[0] = 0;
    const bool with_lengths = in.bit();
    Array<int64_t> lengths(with_lengths ? batch : 0);
    for (int64_t& length : lengths) length = steps - numbers.below(steps / 2 + 1);
    for (int64_t row = 0; row < batch * steps; ++row) {
        const bool within = !with_lengths || row % steps < lengths[row / steps];
        offsets[row + 1] = offsets[row] + (within && inputs ? numbers.below(most + 1) : 0);
    }
    const int64_t events = offsets[batch * steps];
    Array<int32_t> indices(events);
    for (int32_t& index : indices) index = static_cast<int32_t>(numbers.below(inputs));
    const int kind = static_cast<int>(in.below(3));
    Array<float> singles(kind == 1 ? events : 0);
    Array<double> doubles(kind == 2 ? events : 0);
    for (float& x : singles) x = numbers.symmetric<float>();
    for (double& x : doubles) x = numbers.symmetric<double>();

    alter(in, lengths, [&](int64_t x) { return in.integer<int64_t>(in.bit() ? steps : x); });
    alter(in, offsets, [&](int64_t x) { return in.integer<int64_t>(in.bit() ? events : x); });
    alter(in, indices, [&](int32_t) { return in.integer<int32_t>(inputs); });
    alter(in, singles, [&](float) { return in.real<float>(); });
    alter(in, doubles, [&](double) { return in.real<double>(); });
    if (empty && !with_lengths) (steps ? steps : batch) = in.integer<int64_t>(steps) & INT64_MAX;

    UncheckedEvents p = {offsets.data(), indices.data(), singles.data(), doubles.data(), lengths.data(),
                         steps,          batch,          inputs,         events,         1};
    const FoundFault expected = first_fault(p);
    for (const int threads : {1, large ? 3 : in.threads()}) {
        p.threads = threads;
        const FoundFault found = find_fault(p);
        CHECK(found.fault == expected.fault && found.position == expected.position);
    }
    // Indices and values are read only if lengths and first offset are valid.
    return expected.fault != Fault::kLength && expected.fault != Fault::kFirstOffset;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("rows", data, size, faults_are_found);
}
