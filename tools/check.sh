#!/usr/bin/env bash
# Checks that every landing must pass besides Python's tests. BIN is the bin folder of an environment.
#
#     tools/check.sh asan    the C++ tests under the address sanitizer; needs CMake and Ninja
#     tools/check.sh cpp     the C++ tests in release; needs pybind11 as well
#     tools/check.sh rest    the static checks, the documentation without warnings, libsrcell, the CUDA code run on the
#                            host; needs the extra `dev`, and the build of `cpp`
#     tools/check.sh cuda    the CUDA code that nvcc makes, checked and run in an emulator (RUN_PTX has its options);
#                            needs the extra `dev`, and does nothing without nvcc
#
# Without an argument it runs all four. `make release-check` covers the gallery, the interactive pages and clang-tidy.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$(realpath "${BIN:?}")
PATH="$BIN:$PATH"
say() { echo "check: $SECONDS s: $*"; }

cpp() {
    say "the C++ tests in release"
    cmake --preset release -DSRCELL_LIBRARY=ON -DSRCELL_CUDA=OFF -DPython_EXECUTABLE="$BIN/python" \
        -Dpybind11_DIR="$(python -m pybind11 --cmakedir)"
    cmake --build --preset release
    ctest --preset release -j 2
    tools/check_symbols.sh build/release
}

asan() {
    # Without AVX-512: the sanitizer does not check its masked loads and stores, which are most of what it adds. float64
    # of scalar code stands for that of AVX2, whose loops are those of float32.
    say "the C++ tests under the address sanitizer"
    cmake --preset asan -DSRCELL_FUZZ=OFF -DSRCELL_LEAVE_OUT="avx2_f64;avx512"
    cmake --build --preset asan
    ctest --preset asan -j 2
}

# Whether the emulator can run: it needs nvcc, and a torch that does not itself need CUDA's runtime.
emulates() {
    command -v nvcc >/dev/null && python -c 'import torch; raise SystemExit(torch.version.cuda is not None)'
}

rest() {
    # Of the gallery only plot_raster and plot_sound run, because pages show their images. The commands of only one page
    # run here: tests/test_docs.py runs those of all pages.
    say "the documentation"
    sphinx-build -W --keep-going -q -E -t without_browser -t one_console \
        -D "sphinx_gallery_conf.filename_pattern=plot_(raster|sound)" -b html docs build/docs-of-check

    say "the static checks"
    pre-commit run --all-files --show-diff-on-failure
    python tools/stubs.py --check

    # Where there is no emulator all of the kernels' tests run on the host.
    say "libsrcell, and the CUDA code on the host"
    BUILD=build/release PYTHON=$BIN/python tools/check_library.sh build/library
    SRCELL_CUDA_ON_HOST=$(realpath build/release/on_host/_cuda*.so) python -m pytest -q -m landing \
        tests/test_cuda_sizes.py $(emulates || echo tests/test_cuda.py)
}

cuda() {
    if ! command -v nvcc >/dev/null; then
        say "no CUDA code is compiled: nvcc is not on PATH"
        return
    fi
    say "the CUDA code, compiled"
    # On a landing machine code, in which ptxas looks for spills, of one processor, and PTX for the emulator.
    local architectures=()
    [ -n "${RUN_PTX:-}" ] || architectures=(-DCMAKE_CUDA_ARCHITECTURES="75-virtual;90-real;120-virtual")
    cmake --preset ptx "${architectures[@]}" -DPython_EXECUTABLE="$BIN/python" -Dpybind11_DIR="$(python -m pybind11 --cmakedir)"
    cmake --build --preset ptx
    python tools/check_cuda.py build/ptx
    say "the CUDA code, in the emulator"
    if emulates; then
        python tools/run_ptx.py ${RUN_PTX:-}
    else
        say "not run: this torch needs CUDA's runtime, for which the emulator stands in"
    fi
}

for part in "${@:-asan cpp rest cuda}"; do
    for name in $part; do "$name"; done
done
say "done"
