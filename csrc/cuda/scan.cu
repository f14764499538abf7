// Launches the kernels of scan.h.
#include "stream.h"

SRCELL_LAUNCH(scan_forward, srcell::DeviceScanForward<float>)
SRCELL_LAUNCH(scan_forward, srcell::DeviceScanForward<double>)
SRCELL_LAUNCH(scan_backward, srcell::DeviceScanBackward<float>)
SRCELL_LAUNCH(scan_backward, srcell::DeviceScanBackward<double>)
