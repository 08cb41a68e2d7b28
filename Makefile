# make demo and make test do all their own set-up on a fresh machine.
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-stamp
# Tests share the cores as processes; a library that opened a thread per core in each of them would only wait.
JOBS ?= 2

.PHONY: help setup demo docs test test-slow lint format bench clean

help:
	@echo "make setup | demo | docs | test | test-slow | lint | format | bench | clean"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else f"Python 3.11 is needed (found {v[0]}.{v[1]}); say where it is with make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off -c constraints.txt -e ".[sim,envs,lerobot,encoders,rl,dev]"
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
