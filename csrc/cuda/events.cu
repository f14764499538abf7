// Launches the kernels of events.h.
#include "events.h"
#include "stream.h"

SRCELL_LAUNCH(events_forward, srcell::DeviceEventsForward<float>)
SRCELL_LAUNCH(events_forward, srcell::DeviceEventsForward<double>)
SRCELL_LAUNCH(events_backward, srcell::TracedBackward<float>)
SRCELL_LAUNCH(events_backward, srcell::TracedBackward<double>)
