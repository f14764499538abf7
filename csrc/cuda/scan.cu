// Launches the kernels of scan-inl.h and turn-inl.h.
#include "stream.h"

SRCELL_LAUNCH(scan_forward, srcell::DeviceScanForward<float>)
SRCELL_LAUNCH(scan_forward, srcell::DeviceScanForward<double>)
SRCELL_LAUNCH(scan_backward, srcell::DeviceScanBackward<float>)
SRCELL_LAUNCH(scan_backward, srcell::DeviceScanBackward<double>)
SRCELL_LAUNCH(make_turn, srcell::DeviceTurn<float>)
SRCELL_LAUNCH(make_turn, srcell::DeviceTurn<double>)
