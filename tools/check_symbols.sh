#!/usr/bin/env bash
# Checks the symbols of the binaries. In a build folder, each ISA's object must export exactly one function and have no
# weak symbols and no static constructors. A compiled module must export only its PyInit function, and must not link
# torch, an OpenMP runtime, or a shared library of CUDA (its runtime is linked statically).
#
#     tools/check_symbols.sh (BUILD_FOLDER | MODULE.so) ...
set -euo pipefail

check_object() {
    local symbols exported
    symbols=$(nm "$1")
    exported=$(grep -c ' [TDBRV] ' <<<"$symbols" || true)
    if [ "$exported" != 1 ] || ! grep -q ' T .*kernels_' <<<"$symbols"; then
        echo "$1: expected one exported function, got:" >&2
        grep ' [TDBRV] ' <<<"$symbols" >&2
        exit 1
    fi
    if grep ' [WVuvw] ' <<<"$symbols" >&2; then
        echo "$1: the symbols above are weak: code of this ISA could serve another" >&2
        exit 1
    fi
    if readelf -SW "$1" | grep -E '\.(init_array|ctors)' >&2; then
        echo "$1: has static constructors" >&2
        exit 1
    fi
}

check_module() {
    local exported
    exported=$(nm --dynamic --defined-only "$1" | awk '{print $NF}')
    if [[ ! $exported =~ ^PyInit_[a-z_]+$ ]]; then
        echo "$1: expected only its PyInit function to be exported, got:" $exported >&2
        exit 1
    fi
    if readelf -d "$1" | grep -E 'NEEDED.*(torch|c10|cuda|omp)' >&2; then
        echo "$1: links the libraries above, but must not link torch, CUDA or OpenMP" >&2
        exit 1
    fi
}

for argument in "$@"; do
    if [ -d "$argument" ]; then
        objects=$(find "$argument" -name 'kernels.cpp.o')
        [ -n "$objects" ] || { echo "no kernels.cpp.o below $argument" >&2; exit 1; }
        for object in $objects; do check_object "$object"; done
        echo "symbols: $(wc -w <<<"$objects") objects checked"
    else
        check_module "$argument"
        echo "symbols: $(basename "$argument") checked"
    fi
done
