# `make demo` and `make test` do all the set-up on a fresh Debian or Ubuntu. They need Python 3.10 or newer with venv
# and a C++17 compiler, and say which of these is missing. They install srcell in place: edits of Python take effect at
# once; after an edit of C++, `make` and every target below recompile what changed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SHELL := bash
.SHELLFLAGS := -o pipefail -c

# Tests run in several processes, each with one thread unless a test sets their number; WORKERS=0 runs them in pytest's
# own, for a debugger. Waiting threads sleep: spinning ones would take cores that others need.
WORKERS ?= auto
PYTEST = OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: all demo test check landing docs pages browser release-check coverage fuzz soak wheels format clean
.DELETE_ON_ERROR:

all: $(VENV)/train

demo: $(VENV)/train
	$(BIN)/srcell train digits

# ARGS are options of pytest: make test ARGS="-k lateral -x". Modules that need other extras are skipped; `make landing`,
# which installs all extras, skips none.
test: $(VENV)/test
	$(PYTEST) --doctest-ignore-import-errors -r sfE --pyargs tests srcell $(ARGS)

# What must pass on every landing, besides `make test`; CI runs it. CONTRIBUTING.md has the table of tiers.
check: $(VENV)/dev
	BIN=$(BIN) tools/check.sh
landing: $(VENV)/dev
	$(PYTEST) -q -m 'landing and not release' --pyargs tests srcell $(ARGS)

# The remaining checks, run by hand before a release, or by subject: make release-check SUBJECTS="threads fuzz".
release-check: $(VENV)/dev
	BIN=$(BIN) tools/release_check.sh $(SUBJECTS)

# The runtime for browsers: build/wasm32/srcell.wasm.
browser: $(VENV)/docs
	PATH="$(abspath $(BIN)):$$PATH"; cmake --preset wasm32 && cmake --build --preset wasm32

# The pages of docs/, with every warning an error.
docs: $(VENV)/docs browser
	$(BIN)/sphinx-build -W --keep-going -q -E -b html docs build/docs
	@echo "the documentation is in $(CURDIR)/build/docs/index.html"

# Writes into README.md and docs/ what is made elsewhere: tables of results, code, figures.
pages: $(VENV)/docs
	PYTHONPATH=bench:experiments:tools:tests/support $(BIN)/python docs/_machinery/pages.py

# Line coverage: of python/ by the tests, at least 95 %, and of csrc/ by the C++ tests.
coverage: $(VENV)/dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -m '' --pyargs tests srcell
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

# The build tools. They stay installed, so that a second build compiles only what changed.
$(VENV)/tools: $(BIN)/python
	$(BIN)/python -m pip install --quiet "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.20" "ninja>=1.11"
	@touch $@

# Compiles the module, and installs the package in place. Of the build's output it shows only the steps and the line
# about CUDA.
COMPILED := $(shell find csrc -type f) CMakeLists.txt pyproject.toml
INSTALL = PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip install --no-build-isolation
$(VENV)/core: $(VENV)/tools $(COMPILED)
	@echo "Compiling srcell for this Python: about a minute on two cores, less after a change."
	@$(INSTALL) --no-deps -v -e . 2>&1 | tee $(VENV)/build.log | \
	  sed -u -n 's/^ *-- \(srcell: .*\)/\1/p; s/^ *\(\[[0-9]*\/[0-9]*\] [BL]\)/\1/p' || \
	  { tail -n 60 $(VENV)/build.log; echo "the build failed; its full output is in $(VENV)/build.log" >&2; exit 1; }
	@touch $@

# One stamp file per extra; installing an extra also touches the stamps of the extras that it contains.
CONTAINED_docs := train
CONTAINED_test := train
CONTAINED_dev := train test docs
$(VENV)/train $(VENV)/test $(VENV)/docs $(VENV)/dev: $(VENV)/core
	@[ -e $@ ] && [ $@ -nt pyproject.toml ] || { echo "Installing what the extra '$(@F)' needs in $(VENV)." && \
	  $(INSTALL) -e ".[$(@F)]"; }
	@touch $(addprefix $(VENV)/,$(CONTAINED_$(@F))) $@

clean:
	rm -rf build dist $(VENV)
