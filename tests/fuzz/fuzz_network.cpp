// Fuzz target: any bytes as the file of a network.
#include "../cpp/network_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    srcell::network_agrees(data, size);
    return 0;
}
