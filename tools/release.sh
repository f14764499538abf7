#!/usr/bin/env bash
# Prepares a release on one machine: checks that the versions agree, leaves the sdist and wheels for x86-64 and AArch64 in
# dist/, runs `make release-check`, and tags the commit. Then it prints the push command for a person to run;
# .github/workflows/release.yml takes over from there, builds all wheels anew and publishes them.
#
#     tools/release.sh              all of this
#     tools/release.sh --dry-run    all but the tag, also of a version in development
#     tools/release.sh --check TAG  only the versions, against a tag
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
fail() { echo "$1" >&2; exit 1; }
mode=${1:-release}
case $mode in
    release | --dry-run) [ $# -le 1 ] ;;
    --check) [ $# = 2 ] ;;
    *) false ;;
esac || fail "usage: tools/release.sh [--dry-run | --check TAG]"

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
cited=$(sed -n 's/^version: //p' CITATION.cff)
[ "$cited" = "$version" ] || fail "CITATION.cff: expected version $version, as in pyproject.toml, got $cited"
heading=$(grep -m 1 '^## ' CHANGELOG.md)
[[ "$heading " == "## ${version%.dev*} "* ]] || fail "CHANGELOG.md: expected ${version%.dev*} first, got: $heading"
if [ "$mode" != --dry-run ]; then
    [[ $version =~ ^[0-9.]+$ ]] || fail "pyproject.toml: expected a version to be released, got $version"
    [[ $heading != *development* ]] || fail "CHANGELOG.md: expected a version to be released, got: $heading"
fi
if [ "$mode" = --check ]; then
    [ "$2" = "v$version" ] || fail "expected the tag v$version, got $2"
    exit
fi
[ -z "$(git status --porcelain)" ] || fail "expected nothing uncommitted, got:"$'\n'"$(git status --short)"
[ "$mode" = --dry-run ] || [ -z "$(git tag --list "v$version")" ] || fail "the tag v$version is there already"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf dist
MACHINES="x86_64 aarch64" tools/wheels.sh dist "$PYTHON"
"$PYTHON" -m venv "$work/env"
"$work/env/bin/pip" install --quiet twine
"$work/env/bin/twine" check --strict dist/*
WHEELS=$PWD/dist PYTHON=$(command -v "$PYTHON") make release-check

ls -l dist
if [ "$mode" = --dry-run ]; then
    echo "srcell $version: this was a dry run, nothing is tagged"
else
    git tag --annotate "v$version" --message "srcell $version"
    echo "srcell $version is tagged; now: git push origin main v$version"
fi
