// Launches the kernels of integer.h.
#include "integer.h"
#include "stream.h"

SRCELL_LAUNCH(integer_forward, srcell::DeviceIntegerForward)
SRCELL_LAUNCH(integer_backward, srcell::DeviceIntegerBackward)
