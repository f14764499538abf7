#!/usr/bin/env bash
# Builds and installs libsrcell, builds the C example against the installed package, with the shared and the static
# library, and compares its output with srcell.runtime's: on three networks, one of them resonant, one with delays, on
# those that tests/test_export_networks.py composes of modules, and on those of tests/test_standardise.py.
# PYTHON is a Python with srcell[test]. Before that, unless it cross-compiles, it runs the commands of
# docs/howto/runtime.md on a copy of the tracked files.
#
#     tools/check_library.sh FOLDER [options of cmake]
#
# BUILD is a folder in which it is built already, with SRCELL_LIBRARY and without SRCELL_PYTHON; then only the example is
# compiled. With a cross compiler, RUN runs its programs (such as "qemu-aarch64 -L /usr/aarch64-linux-gnu").
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
shift
PYTHON=${PYTHON:-python}
options=(-G Ninja -DCMAKE_BUILD_TYPE=Release "$@")
if [ -z "${BUILD:-}" ]; then
    BUILD=$folder/build
    cmake -S . -B "$BUILD" "${options[@]}" -DSRCELL_PYTHON=OFF -DSRCELL_CUDA=OFF -DSRCELL_LIBRARY=ON \
        -DSRCELL_WERROR=ON >/dev/null
    cmake --build "$BUILD" >/dev/null
fi
if [ -z "${RUN:-}" ]; then
    within() { sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/{//!p}"; }
    rm -rf "$folder/clone"
    mkdir -p "$folder/clone"
    git ls-files -z | xargs -0 cp --parents -t "$folder/clone"
    within python <docs/howto/runtime.md >"$folder/clone/page.py" # writes the files that the commands read
    commands=$(sed -n '/^## In C$/,$p' docs/howto/runtime.md | within sh)
    # The build type None adds no flags: compilation without optimisation and debug information is the fastest.
    (cd "$folder/clone" && "$PYTHON" page.py && CMAKE_BUILD_TYPE=None \
        bash -euo pipefail -c "$commands") >"$folder/documented"
    for file in include/srcell.h lib/libsrcell.so lib/libsrcell.a lib/cmake/srcell/srcell-config.cmake; do
        test -e "$folder/clone/build/installed/$file"
    done
    for line in '^step 100: class ' '^element 12: class ' '^16000 samples: class 10,'; do
        grep -q "$line" "$folder/documented"
    done
fi
cmake --install "$BUILD" --prefix "$folder/installed" >/dev/null

# The shared library exports only the C interface, and needs no C++ library.
library=$(find "$folder/installed" -name 'libsrcell.so')
exported=$(nm --dynamic --defined-only "$library" | awk '{print $NF}')
if grep -v '^srcell_[a-z_]*$' <<<"$exported"; then
    echo "$library: expected only names of srcell.h to be exported, got the above too" >&2
    exit 1
fi
declared=$(grep -oE 'srcell_[a-z_]+\(' csrc/runtime/srcell.h | tr -d '(' | sort -u)
if [ "$declared" != "$(sort -u <<<"$exported")" ]; then
    echo "$library: does not export what srcell.h declares" >&2
    exit 1
fi
if readelf -d "$library" | grep -E 'NEEDED.*(stdc\+\+|gcc_s|python|torch|omp)' >&2; then
    echo "$library: links the libraries above" >&2
    exit 1
fi

PYTHONPATH=tests "$PYTHON" - "$folder" <<'END'
import sys
from pathlib import Path

import numpy as np
import torch
from srcell import export, runtime, spread_frequencies
from srcell.models import SRCClassifier
from test_cochlea import CURRENTS, EVENTS, chirp, network_for
from test_export_networks import composed
from test_standardise import NETWORKS, sequences

folder = sys.argv[1]
torch.manual_seed(0)


def expect(name, steps):
    """Write the steps, and what the example prints for them."""
    stream = runtime.load(f"{folder}/{name}.srcell").stream()
    with open(f"{folder}/{name}.steps", "w") as lines, open(f"{folder}/{name}.expected", "w") as expected:
        for number, step in enumerate(steps, start=1):
            lines.write(" ".join(map(str, step.nonzero()[0])) + "\n")
            stream.step(step)
            if number % 20 == 0:
                logits = stream.logits()[0]
                expected.write(f"step {number}: class {logits.argmax()}, logit {logits.max():.9g}\n")


def expect_learning(name, steps, passes=15):
    """Write two samples, and the file of what the example learns from them."""
    net = runtime.load(f"{folder}/{name}.srcell")
    try:
        learner = net.learner()
    except ValueError:  # integers, maps
        return
    samples = (0, steps[:40]), (net.num_classes - 1, steps[40:65])
    with open(f"{folder}/{name}.samples", "w") as lines:
        for label, of_sample in samples:
            lines.write(f"class {label}\n")
            lines.writelines(" ".join(map(str, step.nonzero()[0])) + "\n" for step in of_sample)
    for _ in range(passes):
        for label, of_sample in samples:
            learner.step((of_sample != 0)[:, None], [label])
    learner.network().save(f"{folder}/{name}.learnt")


steps = np.random.default_rng(0).random((100, 64)) < 0.1
for name, options in (
    ("net", {}),
    ("resonant", {"omega": spread_frequencies(0.05, 2)}),
    ("delayed", {"input_delay": 30, "taps": 2, "recurrent_delay": 20}),
):
    network = SRCClassifier(64, [40], 10, recurrent=True, initial_state="rest", **options)
    network.class_names = [*"abcdefgh", 'a "name"', "\u00e9"] if name == "resonant" else ()
    network.export(f"{folder}/{name}.srcell")
    expect(name, steps)
    expect_learning(name, steps)
for number, (content, events) in enumerate(composed().values()):
    if runtime.Network(content).num_classes:
        Path(f"{folder}/composed-{number}.srcell").write_bytes(content)
        active = events.to_dense()[:, 0].numpy() != 0
        expect(f"composed-{number}", active)
        expect_learning(f"composed-{number}", active)

samples = (chirp() * 32767).round().numpy()
Path(f"{folder}/sound").write_bytes(samples.astype("<i2").tobytes())
for name, encoding in (("currents", CURRENTS), ("events", EVENTS)):
    export(network_for(encoding), f"{folder}/{name}.hears")
    stream = runtime.load(f"{folder}/{name}.hears").stream()
    stream.hear(samples / 32768)
    (logits,) = stream.logits()
    text = f"{len(samples)} samples: class {logits.argmax()}, logit {logits.max():.9g}\n"
    Path(f"{folder}/{name}.heard").write_text(text)

for number, name in enumerate(("a classifier", "delays", "Linear", "no prefix")):
    export(NETWORKS[name](), f"{folder}/{number}.fed")
    stream, values, expected = runtime.load(f"{folder}/{number}.fed").stream(), sequences(), ""
    for sequence in values:
        stream.reset()
        for element, row in enumerate(sequence, start=1):
            stream.feed(row)
            (logits,) = stream.logits()
            expected += f"element {element}: class {logits.argmax()}, logit {logits.max():.9g}\n"
    lines = ("\n".join(" ".join(f"{x:.9g}" for x in row) for row in sequence.tolist()) for sequence in values)
    Path(f"{folder}/{number}.values").write_text("\n\n".join(lines) + "\n")
    Path(f"{folder}/{number}.classes").write_text(expected)
END
for kind in srcell static; do
    sed "s/srcell::srcell/srcell::$kind/; s/LANGUAGES C/LANGUAGES C CXX/" examples/c/CMakeLists.txt >"$folder/CMakeLists.txt"
    cp examples/c/{control,learn,listen,sequence}.c tests/cpp/interface.c "$folder/"
    echo "add_executable(interface interface.c)
        target_link_libraries(interface PRIVATE srcell::$kind m)" >>"$folder/CMakeLists.txt"
    cmake -S "$folder" -B "$folder/$kind" "${options[@]}" -DCMAKE_PREFIX_PATH="$(realpath "$folder/installed")" \
        -DCMAKE_C_FLAGS="-std=c99 -pedantic -Wall -Wextra -Werror" >/dev/null
    cmake --build "$folder/$kind" >/dev/null
    for network in "$folder"/*.srcell; do
        name=${network%.srcell}
        ${RUN:-} "$folder/$kind/control" "$network" <"$name.steps" | diff "$name.expected" -
    done
    for network in "$folder"/*.learnt; do
        name=${network%.learnt}
        ${RUN:-} "$folder/$kind/learn" "$name.srcell" "$folder/mine" <"$name.samples" >/dev/null
        cmp "$folder/mine" "$network"
    done
    for name in currents events; do
        ${RUN:-} "$folder/$kind/listen" "$folder/$name.hears" <"$folder/sound" 2>/dev/null | tail -n 1 |
            diff "$folder/$name.heard" -
    done
    for network in "$folder"/*.fed; do
        name=${network%.fed}
        ${RUN:-} "$folder/$kind/sequence" "$network" <"$name.values" | diff "$name.classes" -
    done
    ${RUN:-} "$folder/$kind/interface" "$folder"/{resonant,net,delayed}.srcell
    if ${RUN:-} "$folder/$kind/control" "$folder/net.expected" </dev/null 2>"$folder/error"; then exit 1; fi
    grep -q 'net.expected: expected a safetensors file' "$folder/error"
done
networks=$(find "$folder" -maxdepth 1 -name '*.srcell' | wc -l)
echo "library: $(wc -l <<<"$exported") functions, with $networks networks the example gives what srcell.runtime gives"
