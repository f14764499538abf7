#!/usr/bin/env bash
# Compiles the kernels and the runtime for systems that nothing here runs: macOS and Windows, by zig's clang, without
# optimisation. The presets macos-arm64, macos-x86_64 and windows-x86_64 build them, with their tests.
set -euo pipefail
cd "$(dirname "$0")/.."
export made=$(mktemp -d)
trap 'rm -r "$made"' EXIT
check() {  # TARGET FILE [OPTION ...]
    python-zig c++ -target "$1" -std=c++17 -Wall -Wextra -Werror -O0 -fno-sanitize=undefined "${@:3}" -c "$2" -o "$made/$$.o" ||
        { echo "$1: $2" >&2; exit 1; }
}
export -f check
list() {
    local common=(csrc/runtime/*.cpp csrc/cpu/{dispatch,event_rows,memory,parallel}.cpp csrc/platform/{file,pool,threads_own}.cpp)
    printf 'aarch64-macos %s\n' "${common[@]}" csrc/platform/pages_posix.cpp "csrc/cpu/kernels.cpp -DSRCELL_ISA=neon -DSRCELL_ISA_neon"
    printf 'x86_64-windows-gnu %s\n' "${common[@]}" csrc/platform/pages_windows.cpp \
        "csrc/cpu/kernels.cpp -DSRCELL_ISA=avx2 -DSRCELL_ISA_avx2 -mavx2 -mfma"
}
list | xargs -P 2 -I{} bash -c 'check {} -DSRCELL_VERSION=\"0\"'
echo "systems: $(list | wc -l) compilations for macOS and Windows"
