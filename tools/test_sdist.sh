#!/usr/bin/env bash
# From the sdist alone, in an empty folder: installs it, trains a network, exports it, runs it in C, lets it learn there
# from ten samples, and runs what it learnt.
#
#     tools/test_sdist.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/env"
PATH="$work/env/bin:$PATH"
pip install --quiet build
python -m build --sdist --outdir "$work" . >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; exit 1; }
cd "$work"
sdist=$(ls srcell-*.tar.gz)
SRCELL_CUDA=OFF pip install --quiet "srcell[train] @ file://$work/$sdist" "cmake>=3.20"
srcell train digits --epochs 2 --out run >/dev/null
srcell export run net.srcell

# Ten digits, one of each class, as examples/c/learn.c reads them; the first alone, as examples/c/control.c does.
cat >samples.py <<'END'
from srcell import data, runtime

digits, net = data.load("digits").test, runtime.load("net.srcell")
chosen = [int((digits.labels == label).nonzero()[0]) for label in range(10)]
with open("samples.txt", "w") as samples, open("steps.txt", "w") as steps:
    for label, index in enumerate(chosen):
        print("class", label, file=samples)
        events = net.encode(digits.images[index].reshape(1, -1), seed=label)
        for begin, end in zip(events.offsets, events.offsets[1:], strict=False):
            print(*events.indices[begin:end], file=samples)
            if not label:
                print(*events.indices[begin:end], file=steps)
END
python samples.py
tar -xzf "$sdist"
source=$work/${sdist%.tar.gz}
# The commands of docs/howto/runtime.md that build the programs.
commands=$(sed -n '/^## In C$/,$p' "$source/docs/howto/runtime.md" | sed -n '/^```sh$/,/^```$/{//!p;/^```$/q}')
(cd "$source" && CMAKE_BUILD_PARALLEL_LEVEL=2 bash -euo pipefail -c "$commands") >c.log 2>&1 || { cat c.log >&2; exit 1; }
run() { "$source/build/c/control" "$1" <steps.txt | tail -n 1; }
before=$(run net.srcell)
"$source/build/c/learn" net.srcell mine.srcell <samples.txt
after=$(run mine.srcell)
echo "before: $before"$'\n'"after:  $after"
[[ $after = *": class 0, "* && $after != "$before" ]]
