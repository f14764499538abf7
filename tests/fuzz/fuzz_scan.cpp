// Fuzz target: the scan of given currents in every ISA, forward and backward.
#include "../cpp/scan_property.h"

using namespace srcell;

namespace {

template <class T>
bool scans_agree(Input& in) {
    const CellOptions any = cell_options(in), o = clamped(any);
    const auto seed = in.bytes(4);
    const bool backward = !in.rarely(64);
    in.thread_counts();
    CellInputs<T> cell(in, o, seed);
    const Array<T> current = input_current(in, cell);
    scans_agree(in, cell, current, backward, any.lengths);
    return current.size();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("scan", data, size,
                [](Input& in) { return in.bit() ? scans_agree<double>(in) : scans_agree<float>(in); });
}
