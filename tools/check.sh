#!/usr/bin/env bash
# The static checks and the C++ tests. BIN is the bin folder of an environment with the extra `dev`.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$(realpath "${BIN:?}")
PATH="$BIN:$PATH"

ruff check .
ruff format --check .
mypy
git ls-files '*.cpp' '*.cu' '*.h' | xargs clang-format --dry-run --Werror

cmake --preset release -DPython_EXECUTABLE="$BIN/python" -Dpybind11_DIR="$("$BIN/python" -m pybind11 --cmakedir)"
cmake --build --preset release
ctest --preset release
SRCELL_CUDA_ON_HOST=$(realpath build/release/on_host/_cuda*.so) "$BIN/python" -m pytest -q tests/test_cuda.py
"$BIN/python" tools/check_cuda.py
tools/check_symbols.sh build/release
cmake --preset asan
cmake --build --preset asan
ctest --preset asan

# The documentation, and its examples with all that they need.
sphinx-build -W --keep-going -q -E -b html docs build/docs
"$BIN/python" -m pytest -q tests/test_docs.py
