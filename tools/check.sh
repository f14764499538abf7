#!/usr/bin/env bash
# The static checks and the C++ tests. BIN is the bin folder of an environment with the extra `dev`.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$(realpath "${BIN:?}")
PATH="$BIN:$PATH"

pre-commit run --all-files --show-diff-on-failure
"$BIN/python" -m mypy.stubtest srcell._core --allowlist tools/stubtest_allowlist.txt

python=(-DPython_EXECUTABLE="$BIN/python" -Dpybind11_DIR="$("$BIN/python" -m pybind11 --cmakedir)")
cmake --preset dev -DSRCELL_PYTHON=ON -DSRCELL_LIBRARY=ON -DSRCELL_CUDA=OFF -DCMAKE_EXPORT_COMPILE_COMMANDS=ON "${python[@]}"
git ls-files 'csrc/cpu/*.cpp' 'csrc/platform/*_posix.cpp' csrc/platform/{file,pool,threads_openmp}.cpp 'csrc/runtime/*.cpp' 'csrc/bindings/*.cpp' ':!*/cuda.cpp' | xargs -P 2 -n 1 clang-tidy -p build/dev --quiet

# The documentation, which keeps one core busy, beside what follows; on play/ its pages load srcell.wasm. `make test` runs
# its examples, except those that need other libraries.
cmake --preset wasm32
cmake --build --preset wasm32
sphinx-build -W --keep-going -q -E -b html docs build/docs &
documentation=$!
trap 'kill $documentation 2>/dev/null || true' EXIT

cmake --preset release -DSRCELL_LIBRARY=ON "${python[@]}"
cmake --build --preset release
ctest --preset release -j 2
SRCELL_CUDA_ON_HOST=$(realpath build/release/on_host/_cuda*.so) "$BIN/python" -m pytest -q tests/test_cuda.py tests/test_cuda_sizes.py
"$BIN/python" tools/check_cuda.py
tools/check_symbols.sh build/release
BUILD=build/release PYTHON="$BIN/python" tools/check_library.sh build/library
cmake --preset asan
cmake --build --preset asan
ctest --preset asan -j 2
# Without address randomisation where possible: the thread sanitizer's runtime may fail if the system randomises more
# bits of addresses than it expects.
cmake --preset tsan
cmake --build --preset tsan --target srcell_test_threads srcell_test_runtime
fixed_addresses=$(setarch -R true 2>/dev/null && echo "setarch -R" || true)
$fixed_addresses ctest --preset tsan -R '^(threads|runtime)$'

tools/check_systems.sh

wait "$documentation"
"$BIN/python" -m pytest -q tests/test_docs.py tests/test_gallery.py tests/test_works.py -k 'porting or neurobench or notebook or works'

# Its pages to play with, in node and Chromium.
SRCELL_BROWSER=build/docs "$BIN/python" -m pytest -q tests/test_browser.py
