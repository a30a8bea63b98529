# Everything happens in a virtual environment of its own, .venv, so that the system's Python stays as it is.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo install test test-metaworld lint benchmarks clean

demo: install  ## install, then the main job: an agent that learns to find goals it has never seen (about 5 minutes)
	$(BIN)/nacre train pearl sparse-point-robot

install: $(VENV)/.installed

test: $(VENV)/.tested  ## install what the tests need, and run them
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Meta-World pins an older MuJoCo, so it has an environment of its own.
test-metaworld: $(VENV)-metaworld/.tested  ## the tests of Meta-World and of MuJoCo's families under its MuJoCo
	$(VENV)-metaworld/bin/python -m pytest -n 2 --dist worksteal tests/envs/test_metaworld.py tests/envs/test_locomotion.py

$(VENV)-metaworld/.tested: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-metaworld
	grep -v '^mujoco' constraints.txt > $(VENV)-metaworld/constraints.txt
	$(VENV)-metaworld/bin/python -m pip install --quiet --disable-pip-version-check -c $(VENV)-metaworld/constraints.txt -e '.[metaworld]' pytest pytest-timeout pytest-xdist
	@touch $@

lint: $(VENV)/.tested
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' || \
	  { echo "Nacre needs Python 3.11 to 3.14; '$(PYTHON)' is another (or missing). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Could not make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-metaworld .pytest_cache .ruff_cache
