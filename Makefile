# The targets that the README, CI and benchmarks use. `make help` lists them.
SHELL := /bin/sh
BIN := .venv/bin
export PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help setup demo bundle images engine engine-stop test test-arm64 test-clients test-podman chaos lint bench format clean picture

help:
	@sed -nE -e 's/^##@ (.*)/\n\1:/p' -e 's/^([a-z0-9-]+):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 16

##@ use imds-detour

setup: ## prepare .venv and the Debian packages of the demo
	@scripts/setup demo

demo: setup ## a whole start, without Docker; CMD='...' runs your app
	@$(BIN)/imds-detourctl demo $(if $(CMD),--command '$(subst ','\'',$(CMD))')

bundle: ## build/imds-detour, to run in any image; ARCH=arm64 cross-builds
	@scripts/bundle $(if $(ARCH),build/$(ARCH)/imds-detour $(ARCH))

images: ## build the images imds-detour, -ctl and -mock, with Docker
	@for target in bundle ctl mock; do \
	    docker build --file docker/Dockerfile --target $$target \
	        --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
	        --tag imds-detour$$(echo -$$target | sed 's/-bundle//') . || exit; \
	done

##@ work on imds-detour

test: ## lint, types and tests; ENGINE=trixie: on Debian 13's Docker
	@scripts/setup test
	@scripts/test

test-clients: ## test real SDKs, installed once into .cache/clients
	@scripts/setup test
	@scripts/test-clients

test-arm64: ## test the arm64 bundle in a QEMU machine; PAGES=16K
	@scripts/setup test
	@scripts/test-arm64

test-podman: ## test with Podman, rootful and rootless; as root
	@scripts/setup test
	@scripts/test-podman

chaos: ## run the full fault campaign, 10 minutes or more
	@scripts/setup test
	@LONG=1 $(BIN)/pytest -n 2 tests/chaos tests/netns/test_crashes.py

lint: ## lint, format check and strict types only
	@scripts/setup test
	@scripts/test lint

format: ## format the code
	@scripts/setup test
	@$(BIN)/ruff format && $(BIN)/ruff check --fix

engine: ## start a Docker engine for the tests (root, Debian)
	@scripts/engine start

engine-stop: ## stop it
	@scripts/engine stop

bench: ## measure; writes bench/results.json and plots; QUICK=1 is faster
	@scripts/setup test   # the 60 sidecars come from the tests
	@scripts/setup bench
	@$(BIN)/python -m bench

picture: ## draw the READMEs' terminal pictures from a run
	@scripts/setup docs
	@$(BIN)/python -m pictures

clean: ## remove everything that the other targets created
	@for release in '' trixie forky; do ENGINE=$$release scripts/engine stop; done
	rm -rf .venv .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
