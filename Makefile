# `make demo` plays four nights; `make test` runs lint, types and every test. Both create .venv when it is missing.

VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
IMAGE ?= airflow-mcp/runtime:dev
DOCKER_BUILD_FLAGS ?=
# Tests wait for servers and child processes: three at a time keep two cores busy; pods are work enough for a small
# cluster with two. A file's tests share fixtures and stay together.
DISTRIBUTE := --dist loadfile --no-loadscope-reorder
PARALLEL ?= -n 3 $(DISTRIBUTE)
POD_PARALLEL ?= -n 2 $(DISTRIBUTE)

.PHONY: demo demo-ui test lint types unit integration test-kubernetes image benchmark clean distclean

demo: $(READY)  ## four nights on a real MLflow server and a real Airflow
	$(BIN)/python -m demo run

demo-ui: $(READY)  ## Airflow's web UI and MLflow with the runs of the last demo
	$(BIN)/python -m demo ui

test: lint types  ## everything that must hold before a commit lands
	$(BIN)/pytest $(PARALLEL) -m "not benchmark and not kubernetes"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/pytest $(PARALLEL) tests/unit

integration: $(READY)
	$(BIN)/pytest $(PARALLEL) -m integration

test-kubernetes: $(READY)  ## pods on the cluster of KUBECONFIG; needs the image
	@test -n "$$KUBECONFIG" || { echo "KUBECONFIG is not set: these tests need a Kubernetes cluster. With kind:"; \
	  echo "  kind create cluster && make image && kind load docker-image $(IMAGE)"; \
	  echo "  export KUBECONFIG=\$$HOME/.kube/config && make test-kubernetes"; exit 2; }
	AIRFLOW_MCP_TEST_IMAGE=$(IMAGE) $(BIN)/pytest $(POD_PARALLEL) -m kubernetes $(PYTEST_FLAGS) \
	  tests/kubernetes

image:  ## the image of workloads, built with Docker
	docker build $(DOCKER_BUILD_FLAGS) --target runtime --tag $(IMAGE) .

benchmark: $(READY)  ## prints figures next to those of the peers, measured in the same run
	$(BIN)/pytest -m benchmark -s tests/benchmarks

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:  ## remove what demo and tests wrote
	rm -rf .demo .pytest_cache .mypy_cache .ruff_cache

distclean: clean  ## remove the environment too
	rm -rf $(VENV)
