// Launches the kernels of synapse.h.
#include "synapse.h"

#include "stream.h"

SRCELL_LAUNCH(event_keys, srcell::EventKeys)
SRCELL_LAUNCH(event_columns, srcell::EventColumns)
SRCELL_LAUNCH(weight_gradient, srcell::DeviceWeightGradient<float>)
SRCELL_LAUNCH(weight_gradient, srcell::DeviceWeightGradient<double>)
SRCELL_LAUNCH(event_dots, srcell::DeviceEventDots<float>)
SRCELL_LAUNCH(event_dots, srcell::DeviceEventDots<double>)
