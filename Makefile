# The two commands of the README, and all tests. They make .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := --numprocesses auto --dist loadfile --no-loadscope-reorder
SOURCES := pyproject.toml $(shell find jnnk models -type f -not -name '*.pyc')

.PHONY: demo test test-all docs clean

demo: $(VENV)/.installed
	$(BIN)/jnnk study --dataset digits --model resnet8 --out runs/demo --resume

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	JNNK_QUICK_COMPILE=1 $(BIN)/pytest $(PYTEST) -m 'not thorough'

# With what takes too long for every change; what hangs on the last bits is compiled as by a user.
test-all: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	JNNK_QUICK_COMPILE=1 $(BIN)/pytest $(PYTEST) -m 'not user_compile'
	$(BIN)/pytest $(PYTEST) -m user_compile

# The documentation in build/site, from pages, notebooks and docstrings.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jnnk needs Python 3.11 or newer; set PYTHON=... to one")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "cannot make $(VENV): on Debian, apt-get install python3-venv" >&2; exit 1; }

# Not editable: what runs is the installed package, as a user has it.
$(VENV)/.installed: $(BIN)/python $(SOURCES)
	rm -rf build
	$(BIN)/pip install --quiet --disable-pip-version-check .
	touch $@

$(VENV)/.installed-test: $(BIN)/python $(SOURCES)
	rm -rf build
	$(BIN)/pip install --quiet --disable-pip-version-check '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(BIN)/python $(SOURCES)
	rm -rf build
	$(BIN)/pip install --quiet --disable-pip-version-check '.[docs]'
	touch $@ $(VENV)/.installed
