# `make demo` and `make test` do all the set-up on a fresh Debian or Ubuntu. They need Python 3.10 or newer with venv
# and a C++17 compiler, and say which of these is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check browser docs coverage fuzz soak wheels format clean
.DELETE_ON_ERROR:

demo: $(VENV)/train
	$(BIN)/srcell train digits

test: $(VENV)/test
	$(BIN)/python -m pytest --pyargs tests srcell

# The static checks and the C++ tests, as CI runs them beside `make test`.
check: $(VENV)/dev
	BIN=$(BIN) tools/check.sh

# The runtime for browsers: build/wasm32/srcell.wasm.
browser: $(VENV)/docs
	PATH="$(abspath $(BIN)):$$PATH"; cmake --preset wasm32 && cmake --build --preset wasm32

# The pages of docs/, with every warning an error.
docs: $(VENV)/docs browser
	$(BIN)/sphinx-build -W --keep-going -q -E -b html docs build/docs
	@echo "the documentation is in $(CURDIR)/build/docs/index.html"

# Line coverage: of python/ by the tests, at least 95 %, and of csrc/ by the C++ tests.
coverage: $(VENV)/dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q --pyargs tests srcell
	$(BIN)/coverage combine -q && $(BIN)/coverage report --skip-covered --show-missing --fail-under 95
	PATH=$(abspath $(BIN)):$$PATH; cmake --preset coverage && cmake --build --preset coverage && ctest --preset coverage
	$(BIN)/gcovr --root . --filter csrc/ --merge-mode-functions merge-use-line-min build/coverage

# Random cases for SRCELL_SOAK_SECONDS seconds (default 600).
soak: $(VENV)/test
	$(BIN)/python tests/soak.py

# The sdist and a repaired wheel for each Python of PYTHONS, in dist/.
PYTHONS ?= $(PYTHON)
wheels:
	tools/wheels.sh dist $(PYTHONS)

# Fuzzes the Python interface, and with clang (see tools/fuzz.sh) the C++ code: SRCELL_FUZZ_SECONDS seconds per target.
fuzz: $(VENV)/dev
	$(BIN)/python tests/fuzz/run.py
	PATH="$(abspath $(BIN)):$$PATH" tools/fuzz.sh

format: $(VENV)/dev
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.c' '*.cpp' '*.cu' '*.h')

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "srcell needs Python 3.10 or newer; set PYTHON=... (found: $$($(PYTHON) --version 2>&1))" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
	  { echo "no C++ compiler found: apt-get install g++" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

SOURCES := $(shell git ls-files csrc python CMakeLists.txt pyproject.toml 2>/dev/null)

# One stamp file per extra; an extra is installed again when a source file changes, and has what it contains with it. pip
# is not quiet here, so that the progress of downloads and of the build is seen.
CONTAINED_test := train
CONTAINED_docs := train
CONTAINED_dev := train test docs
$(VENV)/train $(VENV)/test $(VENV)/docs $(VENV)/dev: $(BIN)/python $(SOURCES)
	@echo "Building srcell and installing it with its dependencies in $(VENV): 1 to 3 minutes, more on a slow line."
	$(BIN)/python -m pip install ".[$(@F)]"
	@touch $(addprefix $(VENV)/,$(CONTAINED_$(@F))) $@

clean:
	rm -rf build dist $(VENV)
