#!/usr/bin/env bash
# Checks to run by hand, before a release and after changes to their subject:
#
#     tools/release_check.sh [SUBJECT ...]    by default all but `tests`, which `torch` runs too
#
# BIN is the bin folder of an environment with the extra `dev`. The subjects are the functions below; CONTRIBUTING.md says
# which belongs to which folder. Two run at a time, `speed` alone, and each prints its output when it ends. Every subject runs,
# also after a failure; a summary follows.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$(realpath "${BIN:?}")
PATH="$BIN:$PATH"
PYTHON=${PYTHON:-python3}
export OMP_WAIT_POLICY=passive  # otherwise waiting threads spin on cores that other processes need
SKIPPED=77  # the status of a subject that cannot run on this machine

# The tests marked `release`: dozens of killed runs, several processes, inductor, every float32.
tests() {
    python -m pip install --quiet jax  # one test gives its arrays to srcell
    python -m pytest -q -m release --pyargs tests srcell --deselect tests/test_browser.py
}

# Threads under the thread sanitizer; without address randomisation where possible, because the sanitizer's runtime may
# fail if the system randomises more address bits than it expects.
threads() {
    cmake --preset tsan
    cmake --build --preset tsan --target srcell_test_threads srcell_test_runtime srcell_test_learner
    $(setarch -R true 2>/dev/null && echo "setarch -R" || true) ctest --preset tsan -R '^(threads|runtime|learner)$'
}

# The corpora of the C++ fuzz targets under the address sanitizer, and random cases of Python's targets and the soak.
fuzz() {
    cmake --preset asan -DSRCELL_FUZZ=REPLAY -DSRCELL_LEAVE_OUT=
    cmake --build --preset asan
    ctest --preset asan -j 2 -R '^fuzz'
    python tests/fuzz/run.py --seconds "${SRCELL_FUZZ_SECONDS:-20}"
    SRCELL_SOAK_SECONDS=${SRCELL_SOAK_SECONDS:-120} python tests/soak.py
}

# macOS and Windows, compiled and not run; and clang-tidy.
systems() {
    tools/check_systems.sh
    cmake --preset dev -DSRCELL_PYTHON=ON -DSRCELL_LIBRARY=ON -DSRCELL_CUDA=OFF -DCMAKE_EXPORT_COMPILE_COMMANDS=ON \
        -DPython_EXECUTABLE="$BIN/python" -Dpybind11_DIR="$(python -m pybind11 --cmakedir)"
    git ls-files 'csrc/cpu/*.cpp' 'csrc/platform/*_posix.cpp' csrc/platform/{file,pool,threads_openmp}.cpp 'csrc/runtime/*.cpp' \
        'csrc/bindings/*.cpp' ':!*/cuda.cpp' | xargs -P 2 -n 1 clang-tidy -p build/dev --quiet
}

# The documentation with its gallery, and its interactive pages in node and Chromium.
browser() {
    if ! command -v chromium google-chrome chromium-browser >/dev/null; then
        { apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium; } >/dev/null
    fi
    make docs
    SRCELL_BROWSER=build/docs python -m pytest -q -m release tests/test_browser.py
}

# The CUDA module for every architecture, its code checked; and tests/test_cuda.py in the emulator, four times.
cuda() {
    if ! command -v nvcc >/dev/null; then
        echo "cuda: skipped, because nvcc is not on PATH"
        return $SKIPPED
    fi
    local folder
    folder=$(mktemp -d)
    SRCELL_CUDA=ON pip install --no-deps --quiet -C build-dir="$folder/build" -C cmake.define.SRCELL_WERROR=ON \
        -C cmake.define.CMAKE_CUDA_ARCHITECTURES="75;80;86;89;90;100;120" \
        -C cmake.define.CMAKE_CUDA_FLAGS=--no-compress --target "$folder" .
    tools/check_symbols.sh "$folder"/srcell/*.so
    python tools/check_cuda.py "$folder/build"
    # What users get who set SRCELL_CUDA alone.
    cmake -S . -B "$folder/default" -DSRCELL_CUDA=ON -DPython_EXECUTABLE="$BIN/python" \
        -Dpybind11_DIR="$(python -m pybind11 --cmakedir)" | grep 'the CUDA module, for 75-real .* 120-real 120-virtual'
    rm -r "$folder"
    RUN_PTX=--release tools/check.sh cuda
}

# All tests on a repaired wheel, that of the folder WHEELS if it is set, with the oldest torch and the newest.
torch() {
    local folder wheel
    folder=$(mktemp -d)
    [ -n "${WHEELS:-}" ] || tools/wheels.sh "$folder" "$PYTHON"
    wheel=$(ls "${WHEELS:-$folder}"/*"_$(uname -m).whl")
    tools/test_wheel.sh "$wheel" "$PYTHON" 'torch==2.4.*'
    tools/test_wheel.sh "$wheel" "$PYTHON" torch jax
    rm -r "$folder"
}

# From the sdist alone: install it, train a network, export it, run it and let it learn in C.
sdist() {
    tools/test_sdist.sh "$PYTHON"
}

# Calls of small layers beside torch's; after all other subjects, because it measures time.
speed() {
    python bench/guard.py
}

# Networks, streams and sounds that threads share, without a GIL. FREE_THREADED names the Python, by default python3.14t.
free_threading() {
    local python=${FREE_THREADED:-python3.14t} folder
    if ! command -v "$python" >/dev/null; then
        echo "free_threading: skipped, because $python is not on PATH"
        return $SKIPPED
    fi
    folder=$(mktemp -d)
    "$python" -m venv "$folder"
    SRCELL_CUDA=OFF "$folder/bin/pip" install --quiet --prefer-binary pytest .
    "$folder/bin/python" -m pytest --noconftest tests/test_free_threading.py
    rm -r "$folder"
}

subjects=(torch fuzz threads systems browser cuda sdist free_threading speed tests)  # the longest first
[ $# -gt 0 ] || set -- "${subjects[@]:0:${#subjects[@]}-1}"
for subject in "$@"; do
    [[ " ${subjects[*]} " == *" $subject "* ]] ||
        { echo "expected some of ${subjects[*]}, got $subject" >&2; exit 2; }
done
logs=$(mktemp -d)
set -m  # each subject has a group of processes, which a signal ends as a whole
trap 'rm -r "$logs"' EXIT
trap 'kill -- $(jobs -p | sed s/^/-/) || true; exit 130' INT TERM HUP
check() {
    local status result start=$SECONDS
    set +e  # not `if` or `||`: in a condition, bash ignores -e in all that the subject calls
    (set -e; "$1") >"$logs/$1" 2>&1
    status=$?
    case $status in
        0) result=passed ;;
        "$SKIPPED") result=skipped ;;
        *) result=FAILED ;;
    esac
    printf 'release-check: %s\n%s\nrelease-check: %s %s\n' "$1" "$(<"$logs/$1")" "$1" "$result"
    printf '%-16s%-8s%6d s\n' "$1" "$result" $((SECONDS - start)) >"$logs/$1"
}
for subject in "$@"; do
    [ "$subject" = speed ] && continue
    while [ "$(jobs -rp | wc -l)" -gt 1 ]; do wait -n || true; done
    check "$subject" </dev/null &
done
wait
[[ " $* " != *" speed "* ]] || check speed
echo "release-check: the summary"
cat "${@/#/$logs/}"
[ "$(cat "${@/#/$logs/}" | grep -cE '^[a-z_]+ +(passed|skipped) +[0-9]+ s$')" = $# ]
