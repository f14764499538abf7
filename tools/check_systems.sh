#!/usr/bin/env bash
# Compiles the kernels, the runtime and the bindings for macOS and Windows, on which no test runs, with zig's clang and
# without optimisation; macOS in the version of pyproject.toml. Python's headers are those of the Python on PATH,
# with tools/pyconfig.h. The presets macos-arm64, macos-x86_64 and windows-x86_64 build libraries and C++ tests.
set -euo pipefail
cd "$(dirname "$0")/.."
export made=$(mktemp -d)
trap 'rm -r "$made"' EXIT
cp -r "$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')" "$made/python"
cp tools/pyconfig.h "$made/python/"
cp -r "$(python -c 'import pybind11; print(pybind11.get_include())')" "$made/pybind11"
check() {  # TARGET FILE [OPTION ...]
    local compiler=(c++ -std=c++17)
    if [[ $2 = *.c ]]; then compiler=(cc); fi
    if [[ $1 = *-macos.* ]]; then  # else zig's libc++ does not report what an older macOS lacks
        local says=_LIBCPP_HAS_VENDOR_AVAILABILITY_ANNOTATIONS
        compiler+=(-U$says -D$says=1)
    fi
    python-zig "${compiler[@]}" -target "$1" -Wall -Wextra -Werror -O0 -fno-sanitize=undefined "${@:3}" \
        -c "$2" -o "$made/$$.o" || { echo "$1: $2" >&2; exit 1; }
}
export -f check
list() {
    local python="-isystem $made/python -isystem $made/pybind11"
    # As one file: each alone would take half as long as all together.
    local others=$(printf -- '-include %s ' csrc/bindings/{delay,encode,events,integer,layer,runtime}.cpp)
    local bindings="csrc/bindings/core.cpp $others"
    local common=(csrc/runtime/*.cpp csrc/cpu/{dispatch,event_rows,memory,parallel}.cpp)
    common+=(csrc/platform/{file,pool,threads_own}.cpp)
    printf "%s $python\n" {aarch64-macos.14.0,x86_64-windows-gnu}" "{"$bindings",csrc/bindings/gil.c}
    printf 'aarch64-macos.14.0 %s\n' "${common[@]}" csrc/platform/pages_posix.cpp
    printf 'x86_64-windows-gnu %s\n' "${common[@]}" csrc/platform/pages_windows.cpp
    for part in f32 f64 other; do
        local kernels="csrc/cpu/kernels.cpp -DSRCELL_PART=$part -DSRCELL_PART_$part"
        printf '%s\n' "aarch64-macos.14.0 $kernels -DSRCELL_ISA=neon -DSRCELL_ISA_neon" \
            "x86_64-windows-gnu $kernels -DSRCELL_ISA=avx2 -DSRCELL_ISA_avx2 -mavx2 -mfma"
    done
    printf 'x86_64-macos.14.0 %s\n' csrc/cpu/{dispatch,parallel}.cpp  # they ask for the processor
}
list | xargs -P 2 -I{} bash -c 'check {} -DSRCELL_VERSION=\"0\"'
echo "systems: $(list | wc -l) compilations for macOS and Windows"
