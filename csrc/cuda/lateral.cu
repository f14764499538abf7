// Launches the kernels of lateral.h.
#include "lateral.h"
#include "stream.h"

SRCELL_LAUNCH(event_currents, srcell::DeviceEventCurrents<float>)
SRCELL_LAUNCH(event_currents, srcell::DeviceEventCurrents<double>)
SRCELL_LAUNCH(lateral_forward, srcell::DeviceLateralForward<float>)
SRCELL_LAUNCH(lateral_forward, srcell::DeviceLateralForward<double>)
SRCELL_LAUNCH(lateral_backward, srcell::DeviceLateralBackward<float>)
SRCELL_LAUNCH(lateral_backward, srcell::DeviceLateralBackward<double>)
SRCELL_LAUNCH(delayed_weight, srcell::DeviceDelayedWeight<float>)
SRCELL_LAUNCH(delayed_weight, srcell::DeviceDelayedWeight<double>)
