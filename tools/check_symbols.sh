#!/usr/bin/env bash
# What architecture promises of the objects: an ISA's object exports one function, has no weak symbols and no static
# constructors; and the compiled module, if there is one, links no torch.
#
#     tools/check_symbols.sh BUILD_FOLDER [MODULE.so]
set -euo pipefail
objects=$(find "$1" -name 'kernels.cpp.o')
[ -n "$objects" ] || { echo "no kernels.cpp.o below $1" >&2; exit 1; }
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
if [ -n "${2:-}" ]; then
    if readelf -d "$2" | grep -E 'NEEDED.*(torch|c10)' >&2; then
        echo "$2: links libtorch" >&2
        exit 1
    fi
fi
echo "symbols: $(wc -w <<<"$objects") objects checked"
