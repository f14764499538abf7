#!/usr/bin/env bash
# All there is to do on a machine with a GPU, in one call of less than ten minutes and without a network: builds against
# the installed torch, runs the GPU tests and bench/gpu.py, and in the time that is left the memory checker over some of
# the tests, where there is one.
#
#     bench/gpu.sh FOLDER
#
# The folder gets gpu-tests.txt, gpu-CARD.json and gpu-sanitizer.txt. It needs nvcc, CMake, ninja, scikit-build-core,
# pybind11, pytest and a torch with CUDA. The status is 1 if a step failed; the later ones still run.
set -uo pipefail
mkdir -p "${1:?a folder for the results}"
out=$(realpath "$1")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
status=0
left() { echo $((570 - SECONDS > 1 ? 570 - SECONDS : 1)); }

SRCELL_CUDA=${SRCELL_CUDA:-ON} timeout 200 "$python" -m pip install --quiet --no-build-isolation --no-deps \
    --force-reinstall --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="${CUDAARCHS:-native}" . || exit 1
timeout 150 "$python" -m pytest -q -p no:cacheprovider tests/test_cuda.py 2>&1 | tee "$out/gpu-tests.txt" || status=1
card=$("$python" - <<'END'
import torch

print(torch.cuda.get_device_name().replace(" ", "-") if torch.cuda.is_available() else "none")
END
)
device=$([ "$card" = none ] && echo cpu || echo cuda)
timeout "$(left)" "$python" bench/gpu.py --device "$device" --out "$out/gpu-$card.json" || status=1
if command -v compute-sanitizer >/dev/null && [ "$card" != none ]; then
    # Without torch's caching of blocks, so that what lies behind a tensor is nobody's.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout "$(left)" compute-sanitizer --error-exitcode 1 --report-api-errors no \
        "$python" -m pytest -q -p no:cacheprovider tests/test_cuda.py \
        -k "(scan_is or events_are or rate_encoding or altered) and not float64" 2>&1 |
        tee "$out/gpu-sanitizer.txt" || status=1
fi
exit $status
