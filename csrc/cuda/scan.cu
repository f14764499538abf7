// The scan on given currents: launches what scan.h says.
#include "stream.h"

SRCELL_LAUNCH(scan_forward, srcell::ScanForward<float>)
SRCELL_LAUNCH(scan_forward, srcell::ScanForward<double>)
SRCELL_LAUNCH(scan_backward, srcell::ScanBackward<float>)
SRCELL_LAUNCH(scan_backward, srcell::ScanBackward<double>)
