#!/usr/bin/env bash
# Fuzzes the C++ code under ASan, UBSan and LSan: all targets or those named, each for SRCELL_FUZZ_SECONDS seconds
# (default 60). Prints how many inputs each target ran and how many of them reached a kernel. Failing inputs are
# written to build/fuzz/found; add them, with the fix, to tests/fuzz/found/TARGET. Generated inputs are kept in
# build/fuzz/corpus. Needs clang with libFuzzer: $CXX, by default the newest clang++ on PATH.
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
