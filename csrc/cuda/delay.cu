// Launches the kernels of delay.h.
#include "delay.h"

#include "stream.h"

SRCELL_LAUNCH(count_delayed, srcell::DelayedEvents<float>)
SRCELL_LAUNCH(count_delayed, srcell::DelayedEvents<double>)
SRCELL_LAUNCH(write_delayed, srcell::DelayedEvents<float>)
SRCELL_LAUNCH(write_delayed, srcell::DelayedEvents<double>)
SRCELL_LAUNCH(delayed_backward, srcell::DelayedEvents<float>)
SRCELL_LAUNCH(delayed_backward, srcell::DelayedEvents<double>)
SRCELL_LAUNCH(delay_elements, srcell::DelayedElements<float>)
SRCELL_LAUNCH(delay_elements, srcell::DelayedElements<double>)
SRCELL_LAUNCH(delay_elements_backward, srcell::DelayedElements<float>)
SRCELL_LAUNCH(delay_elements_backward, srcell::DelayedElements<double>)
