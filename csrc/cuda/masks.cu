// Launches the kernels of masks.h.
#include "masks.h"
#include "stream.h"

SRCELL_LAUNCH(mask_elements, srcell::DeviceMask<float>)
SRCELL_LAUNCH(mask_elements, srcell::DeviceMask<double>)
SRCELL_LAUNCH(mask_columns, srcell::DeviceMask<float>)
SRCELL_LAUNCH(count_mask, srcell::MaskEvents)
SRCELL_LAUNCH(list_mask, srcell::MaskEvents)
SRCELL_LAUNCH(rate_mask, srcell::DeviceRateEncoding)
