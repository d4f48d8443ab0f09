# Two commands matter: `make demo` and `make test`. Both work on a fresh machine with Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TANDEM_HOME ?= .tandem

.PHONY: demo serve test lint bench clean lock setup models

demo: models
	$(BIN)/tandem demo

serve: models
	$(BIN)/tandem serve

test: models
	$(BIN)/python -m pytest

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: models
	$(BIN)/python -m benchmarks.ingest

models: $(VENV)/.ready
	@$(BIN)/tandem models pull

setup: $(VENV)/.ready

# torch goes first and alone: the pinned CPU wheel must be there before anything asks for torch.
$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=24"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

lock:
	$(BIN)/python -m pip freeze --exclude-editable | grep -v '^torch==' | grep -v '@ ' > requirements.lock

clean:
	rm -rf demo-output build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
