# Every target sets up what it needs in .venv first; Python 3.11 or newer is all that must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-vllm test-kubernetes conformance lint format bench soak fuzz lock clean \
	test-charts manifests

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

# The gateway with an example behind it: three model servers and two adapters. Ctrl-C ends it.
demo: $(READY)
	$(BIN)/pointsman run

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The gateway over two real vLLM servers on the CPU, in an environment of their own outside of here.
test-vllm: $(READY)
	python="$$($(BIN)/python -m tests.vllm.environment)" && \
		POINTSMAN_VLLM="$$python" $(BIN)/python -m pytest tests/vllm --durations=8

# The gateway in a cluster: etcd, API server and controllers of Kubernetes are real and built with Go
# (some minutes, once), pods run in network namespaces of this machine. Needs Linux and root.
test-kubernetes: $(READY)
	$(BIN)/python -m tests.kubernetes.binaries
	POINTSMAN_SLOW=1 POINTSMAN_KUBERNETES=required $(BIN)/python -m pytest tests/kubernetes -n 2 --dist loadfile --durations=8

# The conformance suite of the Gateway API in such a cluster, with its report at the end: five minutes
# for what is built once, then two. ARGS are the suite's own, and `--channel=standard`.
conformance: $(READY)
	$(BIN)/python -m tests.kubernetes.suite $(ARGS)

# The charts, rendered by the real helm, which is built with Go where it is not there yet.
test-charts: $(READY)
	$(BIN)/python -m tests.charts.program
	POINTSMAN_HELM=required $(BIN)/python -m pytest tests/charts

# Writes deploy/ as the charts render it.
manifests: $(READY)
	$(BIN)/python -m tests.charts.manifests

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Every figure of docs/performance.md, about twelve minutes on two cores.
bench: $(READY)
	for file in benchmarks/[a-z]*.py; do \
		echo "== $$file"; PYTHONPATH=. $(BIN)/python $$file || exit 1; done

# A million requests through the picker, with its memory.
soak: $(READY)
	$(BIN)/python benchmarks/picker.py --soak 1000000

# The picker's wire, its stream machine and its reader of bodies, fed with twenty thousand random
# examples for each test; about ten minutes of one core.
fuzz: $(READY)
	POINTSMAN_FUZZ=1 $(BIN)/python -m pytest -x --timeout=0 tests/wire/test_http2.py tests/picker/test_hostile.py \
		tests/picker/test_machine.py tests/picker/test_spans.py tests/picker/test_requests.py

# Writes the versions that are installed everywhere, with their hashes, and those of the image.
lock:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --quiet \
		--no-emit-index-url --no-emit-find-links --no-header --upgrade \
		--extra dev --extra kubeconfig pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --quiet \
		--no-emit-index-url --no-emit-find-links --no-header --constraint requirements.lock \
		pyproject.toml --output-file requirements-runtime.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
