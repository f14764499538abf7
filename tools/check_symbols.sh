#!/usr/bin/env bash
# What architecture promises of the binaries. Below a build folder: an ISA's object exports one function, has no weak
# symbols and no static constructors. A compiled module exports its entry alone, and links no torch, no OpenMP runtime,
# and the CUDA runtime only as a part of itself.
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
        echo "$1: expected its entry alone to be exported, got:" $exported >&2
        exit 1
    fi
    if readelf -d "$1" | grep -E 'NEEDED.*(torch|c10|cuda|omp)' >&2; then
        echo "$1: links what it must not" >&2
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
