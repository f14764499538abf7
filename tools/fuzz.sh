#!/usr/bin/env bash
# Fuzzes the C++ code under ASan, UBSan and LSan, each target for SRCELL_FUZZ_SECONDS (60), or those that are named, and
# prints how many inputs each took and how many of them reached a kernel. What it finds lies in build/fuzz/found, and
# belongs, with its fix, into tests/fuzz/found/TARGET; the inputs that it made are kept in build/fuzz/corpus. Needs clang
# with its libFuzzer: CXX, or the clang++ that there is.
#
#     tools/fuzz.sh [TARGET ...]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SRCELL_FUZZ_SECONDS:-60}
newest=$(compgen -c clang++ | grep -E '^clang\+\+(-[0-9]+)?$' | sort -V | tail -n 1 || true)
export CXX=${CXX:-${newest:?no clang++ found: set CXX}}

cmake --preset fuzz
cmake --build --preset fuzz
folder=build/fuzz found=build/fuzz/found
mkdir -p $found
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(basename -a tests/fuzz/fuzz_*.cpp | sed 's/fuzz_\(.*\)\.cpp/\1/')

failed=()
table=$(printf '%-8s %10s %10s %8s' target inputs reached seconds)
for target in "${targets[@]}"; do
    mkdir -p $folder/corpus/"$target"
    folders=("$folder/corpus/$target" "tests/fuzz/corpus/$target")
    [ ! -d tests/fuzz/found/"$target" ] || folders+=("tests/fuzz/found/$target")
    log=$folder/$target.log
    started=$SECONDS
    "$folder"/srcell_fuzz_"$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=160 \
        -len_control=10 -artifact_prefix=$found/"$target"- "${folders[@]}" >"$log" 2>&1 || failed+=("$target")
    counts=$(sed -n "s/^fuzz_$target: inputs \([0-9]*\), reached \([0-9]*\)$/\1 \2/p" "$log")
    read -r inputs reached <<<"${counts:-? ?}"
    table+=$'\n'$(printf '%-8s %10s %10s %8s' "$target" "$inputs" "$reached" $((SECONDS - started)))
done
printf '%s\n' "$table"
for target in "${failed[@]}"; do
    echo "fuzz_$target failed:" >&2
    grep -vE '^#[0-9]+' "$folder/$target".log | tail -n 60 >&2
done
[ ${#failed[@]} -eq 0 ]
