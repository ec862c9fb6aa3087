# Lockgate. `make` prints this help; `make run` and `make test` need nothing else first.

SHELL := /bin/bash
PYTHON ?= python3
PROJECT ?= examples/flights
# The authoring environment; the venv twins of the images lie beside it (pipelines/environments.py).
DEV := .venvs/dev/bin/python -W ignore::FutureWarning

DEBIAN_PYTHON := lockgate/python:3.13-trixie

.DEFAULT_GOAL := help
.PHONY: help setup data run serve demo-loop demo-fraud test test-cluster check generate format lock images push python-image \
  kind-up kind-load kind-status kind-down vendor clean

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  PROJECT=examples/penguins make run    another project"
	@echo "  REGISTRY=registry.example.com/ml make push"
	@echo "  PYTHON=python3.12 make setup          another interpreter (3.11 to 3.13)"

# What a target needs; others get all. A target hands its value on to what it depends on.
run: ENVIRONMENTS = run
serve: ENVIRONMENTS = serve
demo-loop: ENVIRONMENTS = run
demo-fraud: ENVIRONMENTS = run
check generate format lock images push kind-up kind-load kind-status kind-down vendor: ENVIRONMENTS = dev

setup: ## Make the environments from their locks (does nothing when they are there)
	@$(PYTHON) -m pipelines.environments $(ENVIRONMENTS)

data: setup ## Get the data of PROJECT
	@if [ -f $(PROJECT)/prepare_data.py ]; then $(DEV) $(PROJECT)/prepare_data.py; fi

run: setup data ## Train, evaluate and publish a model of PROJECT (default: examples/flights)
	@$(DEV) -m pipelines run $(PROJECT)

serve: setup ## Serve the published model of PROJECT on localhost:8080 (PORT=… for another)
	@$(DEV) -m pipelines.serving $(PROJECT) --port $(or $(PORT),8080)

demo-loop: PROJECT = examples/flights
demo-loop: setup data ## Play a year of flights: serve, log, watch, retrain; draw what that is worth (LOOP=… for options)
	@$(DEV) -m pipelines.demo_loop $(LOOP)

demo-fraud: PROJECT = examples/fraud
demo-fraud: setup data ## Decide weeks of card payments from a Kafka topic; show and draw the alerts (FRAUD=… for options)
	@$(DEV) -m pipelines.demo_fraud $(FRAUD)

test: setup ## Run all tests that this machine can run; the rest is skipped with the reason
	@$(DEV) tests/run.py

test-cluster: setup ## Run the tests that need a cluster, on the one of KUBECONFIG (tests/cluster/README.md)
	@$(DEV) tests/run.py cluster

check: setup ## Lint, types, import contracts, generated files
	@$(DEV) tests/run.py checks

generate: setup ## Write compiled pipelines, component.yaml files, JSON Schema and pictures
	@$(DEV) -m pipelines compile

format: setup ## Format the code
	@.venvs/dev/bin/ruff format --quiet . && .venvs/dev/bin/ruff check --quiet --fix .

lock: setup ## Resolve all locks anew
	@$(PYTHON) -m pipelines.locks

images: setup ## Build the images that stages run in (PYTHON_IMAGE=… replaces their base)
	@$(DEV) -m pipelines images build

push: setup ## Push the images to REGISTRY
	@$(DEV) -m pipelines images push $(if $(REGISTRY),--registry $(REGISTRY))

python-image: ## Make a base for the images from Debian's packages, where no registry is reachable
	@sh containers/python/build.sh $(DEBIAN_PYTHON)
	@echo "now: PYTHON_IMAGE=$(DEBIAN_PYTHON) make images"

kind-up: setup ## Make a kind cluster with Kubeflow Pipelines and KServe, or go on where it stopped (docs/kind.md)
	@$(DEV) -m pipelines kind up

kind-load: data ## Copy the images, and the data of PROJECT, into the kind cluster
	@$(DEV) -m pipelines kind load $(PROJECT)

kind-status: setup ## Show the parts of the kind cluster
	@$(DEV) -m pipelines kind status

kind-down: setup ## Remove the kind cluster
	@$(DEV) -m pipelines kind down

vendor: setup ## Fetch the manifests of the platform, so that kind-up needs no network for them
	@$(DEV) -m pipelines kind vendor

clean: ## Remove what runs wrote (not the environments, not published models)
	rm -rf runs build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
