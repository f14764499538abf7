#!/usr/bin/env bash
# All there is to do on a machine with a GPU, in one call of less than ten minutes and without a network: builds against
# the installed torch, compares the bits of every kernel with the CPU's at the sizes that matter, runs the sanitizers on
# one small case each, the tests of the GPU, and the measurements of bench/gpu.py.
#
#     bench/gpu.sh FOLDER
#
# The folder gets what each step printed (STEP.txt), steps.json with the card, driver, versions and how each step went,
# and gpu-CARD.json. It needs nvcc, CMake, ninja, scikit-build-core, pybind11, pytest and a torch with CUDA. The status
# is 1 if a step failed; the later ones still run, but for a build that failed.
set -uo pipefail
mkdir -p "${1:?a folder for the results}"
out=$(realpath "$1")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
status=0 steps=
machine=$("$python" - <<'END'
import json
import platform
import shutil
import subprocess
from datetime import date

import torch


def said(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout if shutil.which(command[0]) else ""


card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
driver = said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]
nvcc = said("nvcc", "--version").rpartition("release ")[2].partition(",")[0]
versions = {"driver": driver, "nvcc": nvcc, "python": platform.python_version()}
versions |= {"torch": torch.__version__, "cuda of torch": torch.version.cuda}
print(json.dumps({"card": card, "date": str(date.today()), "versions": versions})[1:-1])
END
) || exit 1

# step NAME SECONDS COMMAND...: runs it for at most so many seconds and, but for `bench`, leaves that 120 of the 590.
step() {
    local name=$1 limit=$2 begin=$SECONDS code left=$((590 - SECONDS))
    [ "$name" = bench ] || left=$((left - 120))
    [ "$limit" -le "$left" ] || limit=$((left > 1 ? left : 1))
    shift 2
    timeout -k 5 "$limit" "$@" >"$out/$name.txt" 2>&1
    code=$?
    tail -n 4 "$out/$name.txt"
    echo "$name: status $code after $((SECONDS - begin)) of at most $limit s"
    steps="$steps${steps:+, }\"$name\": {\"status\": $code, \"seconds\": $((SECONDS - begin)), \"limit\": $limit}"
    echo "{$machine, \"steps\": {$steps}}" >"$out/steps.json"
    [ $code = 0 ] || status=1
    return $code
}
tests=("$python" -m pytest -m "" -v -ra --durations=10 -p no:cacheprovider)
# A case with several warps that share a tile of weights, a barrier, and sums over the samples.
small=("${tests[@]}" tests/test_cuda_sizes.py -k "layers_are and 256-100-784 and EventBatch")

SRCELL_CUDA=${SRCELL_CUDA:-ON} step build 240 "$python" -m pip install --quiet --no-build-isolation --no-deps \
    --force-reinstall --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="${CUDAARCHS:-native}" . || exit 1
step bits 150 "${tests[@]}" tests/test_ptx.py tests/test_cuda_sizes.py
if command -v compute-sanitizer >/dev/null; then
    # Without torch's caching of blocks, so that what lies behind a tensor is nobody's.
    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    for tool in memcheck racecheck synccheck; do
        step $tool 60 compute-sanitizer --tool $tool --error-exitcode 1 --report-api-errors no "${small[@]}"
    done
    unset PYTORCH_NO_CUDA_MEMORY_CACHING
fi
step tests 200 "${tests[@]}" tests/test_cuda.py
device=$([[ $machine == *'"card": null'* ]] && echo cpu || echo cuda)
card=$([ $device = cpu ] && echo none || sed 's/.*"card": "\([^"]*\)".*/\1/; s/ /-/g' <<<"$machine")
step bench 590 "$python" bench/gpu.py --device $device --out "$out/gpu-$card.json"
exit $status
