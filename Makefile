# The two commands of the README, and all tests. They make .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := --numprocesses auto --dist loadfile --no-loadscope-reorder
OLDEST := .venv-oldest
LIBRARY := $(addprefix tests/,core parallel graphs network measures penalties pruning \
    training models test_sklearn.py test_lowering.py test_whole_numbers.py)
# Both checks of types at once: all in basic mode, and what tests/strict_types.json names.
TYPES := printf '%s\n' . tests/strict_types.json | xargs -n 1 -P 2 \
    $(BIN)/basedpyright --pythonpath $(BIN)/python --project
SOURCES := pyproject.toml $(shell find jnnk models -type f -not -name '*.pyc')

.PHONY: demo test test-all test-oldest docs clean

demo: $(VENV)/.installed
	$(BIN)/jnnk study --dataset digits --model resnet8 --out runs/demo --resume

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TYPES)
	JNNK_QUICK_COMPILE=1 $(BIN)/pytest $(PYTEST) -m 'not thorough'

# With what takes too long for every change; what hangs on the last bits is compiled as by a user.
test-all: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TYPES)
	JNNK_QUICK_COMPILE=1 $(BIN)/pytest $(PYTEST) -m 'not user_compile'
	$(BIN)/pytest $(PYTEST) -m user_compile

# The library's tests, with the lowest versions of what it needs; old packages warn of each other.
test-oldest: $(OLDEST)/.installed
	PYTHONPATH=. JNNK_QUICK_COMPILE=1 $(OLDEST)/bin/python -m pytest $(PYTEST) -o filterwarnings= \
	    -m 'not thorough and not user_compile' $(LIBRARY)
	PYTHONPATH=. $(OLDEST)/bin/python -m pytest $(PYTEST) -o filterwarnings= \
	    -m 'user_compile and not thorough' $(LIBRARY)

# The documentation in build/site, from pages, notebooks and docstrings.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jnnk needs Python 3.11 or newer; set PYTHON=... to one")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "cannot make $(VENV): on Debian, apt-get install python3-venv" >&2; exit 1; }

# Not editable: what runs is the installed package, as a user has it.
$(VENV)/.installed: $(BIN)/python $(SOURCES)
	rm -rf build
	$(BIN)/pip install --quiet --disable-pip-version-check '.[study]'
	touch $@

$(VENV)/.installed-test: $(BIN)/python $(SOURCES)
	rm -rf build
	$(BIN)/pip install --quiet --disable-pip-version-check '.[test]'
	touch $@ $(VENV)/.installed

$(OLDEST)/.installed: tests/oldest.txt
	rm -rf $(OLDEST)
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check -r tests/oldest.txt \
	    pytest pytest-xdist hypothesis scikit-learn matplotlib networkx
	touch $@

$(VENV)/.installed-docs: $(BIN)/python $(SOURCES)
	rm -rf build
	$(BIN)/pip install --quiet --disable-pip-version-check '.[docs]'
	touch $@ $(VENV)/.installed
