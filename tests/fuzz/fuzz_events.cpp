// Fuzz target: the event kernels of every ISA, on event rows some of which were altered.
#include "../cpp/events_property.h"

using namespace srcell;

namespace {

template <class T>
bool passes_agree(Input& in) {
    const CellOptions o = cell_options(in);
    EventsProblem<T> q(in, o, input_count(in, o));
    if (in.rarely(64)) corrupt(in, q.rows);
    return passes_agree(q) && !o.empty();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("events", data, size,
                [](Input& in) { return in.bit() ? passes_agree<double>(in) : passes_agree<float>(in); });
}
