# make demo and make test do all their own set-up on a fresh machine.
VENV ?= .venv
BIN := $(VENV)/bin
# An environment that is there keeps its Python. PYTHON=/path/to/python says which one a new environment gets.
PYTHON ?= $(shell if [ -x $(BIN)/python ]; then echo $(BIN)/python; \
	else (tools/find_python 3.11; tools/find_python) | head -n 1 | cut -d " " -f 2-; fi)
VERSION := $(shell "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
CONSTRAINTS := constraints/py$(subst .,,$(VERSION)).txt
STAMP := $(VENV)/.setup-stamp
# Tests share the cores as processes; a library that opened a thread per core in each of them would only wait.
JOBS ?= 2

# The tests that meet LeRobot: .ci/run runs them on the other Python too.
LEROBOT_TESTS := tests/policies/cloning tests/policies/serving tests/policies/robots tests/datasets/importers/lerobot \
	tests/hw/contract/test_lerobot_units.py

.PHONY: help setup demo docs test test-lerobot test-matrix test-slow lint format bench clean

help:
	@echo "make setup | demo | docs | test | test-matrix | test-slow | lint | format | bench | clean"

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py $(wildcard constraints/*.txt)
	@test -f $(CONSTRAINTS) || { echo "Python 3.11, 3.12 or 3.13 is needed, with ensurepip (found: $(PYTHON) $(VERSION));" \
		"say where it is with make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@test ! -x $(BIN)/python || $(BIN)/python -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' || \
		{ echo "$(VENV) has another Python than $(VERSION): give another folder with VENV=, or remove it" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off -c $(CONSTRAINTS) -e ".[sim,envs,lerobot,encoders,rl,dev]"
	$(BIN)/python -m robo_policies.system.libraries
	@touch $@

demo: $(STAMP)
	$(BIN)/robo-rm demo out=demo_out

# Warnings are errors: a page that no table of contents names, a link or an anchor that leads nowhere.
docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build/html
	@echo "open docs/_build/html/index.html"

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not alone" -n $(JOBS) --dist loadfile
	$(BIN)/python -m pytest -m "not slow and alone"

test-lerobot: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not alone" -n $(JOBS) --dist loadfile $(LEROBOT_TESTS)
	$(BIN)/python -m pytest -m "not slow and alone" $(LEROBOT_TESTS)

# The suite on every Python that is found here, each in an environment of its own (7 GB).
test-matrix:
	@tools/find_python | while read -r version python; do \
		echo "Python $$version: $$python"; \
		$(MAKE) test PYTHON="$$python" VENV=".venvs/py$$version" < /dev/null || exit 1; \
	done

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow --timeout 3600

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Minutes, on an otherwise idle machine. What learns takes hours and has a command line of its own: see the pages.
bench: $(STAMP)
	mkdir -p out
	$(BIN)/python benchmarks/weights.py
	$(BIN)/python benchmarks/safety_core.py --json out/safety_core.json
	$(BIN)/python benchmarks/transport.py --json out/transport.json
	$(BIN)/python benchmarks/ros2_loop.py --seconds 30 --json out/ros2_loop.json
	$(BIN)/python benchmarks/tidy_drawer.py --json out/tidy_drawer.json
	$(BIN)/python benchmarks/store.py --json out/store.json

clean:
	rm -rf build dist demo_out docs/_build docs/reference *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
