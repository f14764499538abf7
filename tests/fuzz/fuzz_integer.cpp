// Fuzz target: integer neurons on every ISA and in the device code, on event rows some of which were altered.
#include "../cpp/integer_property.h"

using namespace srcell;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("integer", data, size, [](Input& in) {
        const CellOptions o = cell_options(in);
        return any_neurons_agree(in, o, input_count(in, o));
    });
}
