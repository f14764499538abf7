// Launches the kernels of events.h.
#include "events.h"
#include "stream.h"

SRCELL_LAUNCH(events_forward, srcell::DeviceEventsForward<float>)
SRCELL_LAUNCH(events_forward, srcell::DeviceEventsForward<double>)
SRCELL_LAUNCH(events_backward, srcell::DeviceEventsBackward<float>)
SRCELL_LAUNCH(events_backward, srcell::DeviceEventsBackward<double>)
SRCELL_LAUNCH(event_keys, srcell::EventKeys)
SRCELL_LAUNCH(weight_gradient, srcell::DeviceWeightGradient<float>)
SRCELL_LAUNCH(weight_gradient, srcell::DeviceWeightGradient<double>)
SRCELL_LAUNCH(event_dots, srcell::DeviceEventDots<float>)
SRCELL_LAUNCH(event_dots, srcell::DeviceEventDots<double>)
