# `make demo` and `make test` do all the set-up on a fresh Debian or Ubuntu: they need Python 3.10 or newer with venv,
# and a C++17 compiler, and say so where one is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check fuzz format clean
.DELETE_ON_ERROR:

demo: $(VENV)/train
	$(BIN)/srcell train digits

test: $(VENV)/test
	$(BIN)/python -m pytest --pyargs tests srcell

# The static checks and the C++ tests, as CI runs them after `make test`.
check: $(VENV)/dev
	BIN=$(BIN) tools/check.sh

# Needs clang; see tools/fuzz.sh.
fuzz: $(VENV)/dev
	PATH="$(abspath $(BIN)):$$PATH" tools/fuzz.sh

format: $(VENV)/dev
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.cu' '*.h')

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "srcell needs Python 3.10 or newer; set PYTHON=... (found: $$($(PYTHON) --version 2>&1))" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
	  { echo "no C++ compiler found: apt-get install g++" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

SOURCES := $(shell git ls-files csrc python CMakeLists.txt pyproject.toml 2>/dev/null)

# One stamp an extra; each is installed anew when a source file changes.
$(VENV)/train $(VENV)/test $(VENV)/dev: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install --quiet ".[$(@F)]"
	@touch $@

clean:
	rm -rf build dist $(VENV)
