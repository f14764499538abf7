#!/usr/bin/env bash
# What every landing must prove beside Python's tests: the static checks, the documentation without warnings, the C++ tests
# in release and under the address sanitizer, the CUDA code compiled and on the host, libsrcell. The gallery and the pages
# to play with are a part of `make release-check`. BIN is the bin folder of an environment with the extra `dev`.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$(realpath "${BIN:?}")
PATH="$BIN:$PATH"
say() { echo "check: $SECONDS s: $*"; }

say "the static checks"
pre-commit run --all-files --show-diff-on-failure
"$BIN/python" -m mypy.stubtest srcell._core --allowlist tools/stubtest_allowlist.txt

say "the documentation, beside what follows"
sphinx-build -W --keep-going -q -E -t without_browser -D plot_gallery=0 -b html docs build/docs-of-check &
documentation=$!
trap 'kill $documentation 2>/dev/null || true' EXIT

say "the C++ tests in release"
python=(-DPython_EXECUTABLE="$BIN/python" -Dpybind11_DIR="$("$BIN/python" -m pybind11 --cmakedir)")
cmake --preset release -DSRCELL_LIBRARY=ON -DSRCELL_CUDA=OFF -DCMAKE_EXPORT_COMPILE_COMMANDS=ON "${python[@]}"
cmake --build --preset release
ctest --preset release -j 2
tools/check_symbols.sh build/release
git ls-files 'csrc/cpu/*.cpp' 'csrc/platform/*_posix.cpp' csrc/platform/{file,pool,threads_openmp}.cpp 'csrc/runtime/*.cpp' |
    xargs -P 2 -n 1 clang-tidy -p build/release --quiet

say "libsrcell, and the CUDA code"
BUILD=build/release PYTHON="$BIN/python" tools/check_library.sh build/library
SRCELL_CUDA_ON_HOST=$(realpath build/release/on_host/_cuda*.so) "$BIN/python" -m pytest -q -m landing tests/test_cuda.py tests/test_cuda_sizes.py
"$BIN/python" tools/check_cuda.py

say "the C++ tests under the address sanitizer"
cmake --preset asan
cmake --build --preset asan
ctest --preset asan -j 2

say "waiting for the documentation"
wait "$documentation"
say "done"
