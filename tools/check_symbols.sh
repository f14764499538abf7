#!/usr/bin/env bash
# What architecture promises of the objects: an ISA's object exports one function, has no weak symbols and no static
# constructors; and compiled modules, if there are any, link no torch, and the CUDA runtime only as a part of themselves.
#
#     tools/check_symbols.sh BUILD_FOLDER [MODULE.so ...]
set -euo pipefail
folder=$1
shift
objects=$(find "$folder" -name 'kernels.cpp.o')
[ -n "$objects" ] || { echo "no kernels.cpp.o below $folder" >&2; exit 1; }
for object in $objects; do
    symbols=$(nm "$object")
    exported=$(grep -c ' [TDBRV] ' <<<"$symbols" || true)
    if [ "$exported" != 1 ] || ! grep -q ' T .*kernels_' <<<"$symbols"; then
        echo "$object: expected one exported function, got:" >&2
        grep ' [TDBRV] ' <<<"$symbols" >&2
        exit 1
    fi
    if grep ' [WVuvw] ' <<<"$symbols" >&2; then
        echo "$object: the symbols above are weak: code of this ISA could serve another" >&2
        exit 1
    fi
    if readelf -SW "$object" | grep -E '\.(init_array|ctors)' >&2; then
        echo "$object: has static constructors" >&2
        exit 1
    fi
done
for module in "$@"; do
    if readelf -d "$module" | grep -E 'NEEDED.*(torch|c10|cuda)' >&2; then
        echo "$module: links what it must not" >&2
        exit 1
    fi
done
echo "symbols: $(wc -w <<<"$objects") objects and $# modules checked"
