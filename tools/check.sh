#!/usr/bin/env bash
# The static checks and the C++ tests. BIN is the bin folder of an environment with the extra `dev`.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$(realpath "${BIN:?}")
PATH="$BIN:$PATH"

ruff check .
ruff format --check .
mypy
git ls-files '*.cpp' '*.h' | xargs clang-format --dry-run --Werror

cmake --preset release
cmake --build --preset release
ctest --preset release
tools/check_symbols.sh build/release
cmake --preset asan
cmake --build --preset asan
ctest --preset asan
