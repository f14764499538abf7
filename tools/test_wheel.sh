#!/usr/bin/env bash
# Runs the test suite on a wheel: in a new environment, with the torch version given, in a folder without the sources.
#
#     tools/test_wheel.sh WHEEL PYTHON ['torch==2.4.*' ...]
set -euo pipefail
wheel=$(realpath "$1")
python=$2
shift 2
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/env"
"$work/env/bin/pip" install --quiet "srcell[test,nmnist,onnx,nir] @ file://$wheel" accelerate lightning onnxruntime tensorboard "$@"
git ls-files -z tests docs bench experiments tools examples README.md CONTRIBUTING.md CITATION.cff pyproject.toml |
    tar --create --null --files-from=- | tar --extract --directory "$work"
cd "$work"
env/bin/python -c 'import srcell; print({key: srcell.info()[key] for key in ("version", "isa", "thread_runtime", "torch")})'
# test_docs.py compares the pages with the sources, which are not there.
OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 env/bin/python -m pytest -q -m "" -n auto --maxprocesses 4 --dist loadfile \
    --no-loadscope-reorder --ignore=tests/test_docs.py --pyargs tests srcell
