# The targets that the README, CI and benchmarks use. `make help` lists them.
SHELL := /bin/sh
BIN := .venv/bin
export PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help setup demo bundle images engine engine-stop test test-arm64 test-clients chaos lint bench format clean picture

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## prepare .venv and the Debian packages that the demo needs
	@scripts/setup demo

demo: setup ## a complete start on any Linux, without Docker; CMD='...' runs your own command as the app
	@$(BIN)/imds-detourctl demo $(if $(CMD),--command '$(subst ','\'',$(CMD))')

bundle: ## build/imds-detour: a folder that runs in any image; ARCH=arm64 or amd64 cross-builds build/ARCH/imds-detour
	@scripts/bundle $(if $(ARCH),build/$(ARCH)/imds-detour $(ARCH))

images: ## build imds-detour (to copy from), imds-detour-ctl and imds-detour-mock, with Docker
	@for target in bundle ctl mock; do \
	    docker build --file docker/Dockerfile --target $$target \
	        --build-arg REVISION="$$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
	        --tag imds-detour$$(echo -$$target | sed 's/-bundle//') . || exit; \
	done

engine: ## start a Docker engine for the tests, in its own namespaces (root, Debian); `make engine-stop` stops it
	@scripts/engine start

engine-stop:
	@scripts/engine stop

test: ## lint, format, types, and the unit, blackbox and netns tests; docker tests if an engine is reachable
	@scripts/setup test
	@scripts/test

test-clients: ## test real SDKs from their registries with imds-detour; installs them into .cache/clients, once
	@scripts/setup test
	@scripts/test-clients

test-arm64: ## test the arm64 bundle in a virtual machine (QEMU) with an arm64 kernel, 3 minutes; PAGES=16K: with such pages
	@scripts/setup test
	@scripts/test-arm64

chaos: ## run the full fault campaign, half an hour; CI and `make test ALL=1` run a part of it
	@scripts/setup test
	@LONG=1 $(BIN)/pytest -n 2 tests/chaos tests/netns/test_crashes.py

lint: ## lint, format check and strict types only
	@scripts/setup test
	@scripts/test lint

bench: ## measure, print the table, write bench/results.json and bench/plots; QUICK=1 for a first look in 3 minutes
	@scripts/setup test   # the 60 sidecars come from the tests
	@scripts/setup bench
	@$(BIN)/python -m bench

picture: ## draw the READMEs' terminal pictures, docs/start*.svg and docs/doctor*.svg, from a run on this machine
	@scripts/setup docs
	@$(BIN)/python -m pictures

format: ## format the code
	@scripts/setup test
	@$(BIN)/ruff format && $(BIN)/ruff check --fix

clean: ## remove everything that the other targets created
	@scripts/engine stop
	rm -rf .venv .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
