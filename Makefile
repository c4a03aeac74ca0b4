# Everything that a developer, or CI, does with this repository. `make help` lists the targets; those that need a cluster, images,
# the demo or the bench are in hack/make.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

ROOT := $(CURDIR)
# Everything that is built goes to out; each suite leaves its `go test -json` events in RESULTS as <suite>.json.
RESULTS := $(ROOT)/out/test
# Tools are pinned by hack/tools/go.mod and run from Go's build cache.
GO_TOOL = go tool -modfile=$(ROOT)/hack/tools/go.mod
# The folders of this repository's Go modules.
MODULES := $(patsubst %/,%,$(dir $(wildcard go.mod hack/*/go.mod)))

include $(sort $(wildcard hack/make/*.mk))

##@ General

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z0-9_%-]+:.*## / {printf "  %-21s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
