// Launches the kernels of delay.h.
#include "delay.h"

#include "stream.h"

SRCELL_LAUNCH(count_delayed, srcell::DelayedCounts<float>)
SRCELL_LAUNCH(count_delayed, srcell::DelayedCounts<double>)
SRCELL_LAUNCH(write_delayed, srcell::DelayedWrite<float>)
SRCELL_LAUNCH(write_delayed, srcell::DelayedWrite<double>)
SRCELL_LAUNCH(delayed_backward, srcell::DelayedBackward<float>)
SRCELL_LAUNCH(delayed_backward, srcell::DelayedBackward<double>)
SRCELL_LAUNCH(delay_elements, srcell::DelayedElementsForward<float>)
SRCELL_LAUNCH(delay_elements, srcell::DelayedElementsForward<double>)
SRCELL_LAUNCH(delay_elements_backward, srcell::DelayedElementsBackward<float>)
SRCELL_LAUNCH(delay_elements_backward, srcell::DelayedElementsBackward<double>)
