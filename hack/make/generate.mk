##@ Generated files and lint

# Where generated files are written: the tree itself, or, for verify, a folder to compare with it.
GENERATE_TO ?= $(ROOT)

.PHONY: generate
generate: ## Write the generated files: deep copies, CRDs, the API and condition references, the catalogue.
	@mkdir -p $(GENERATE_TO)/api/v1alpha1 $(GENERATE_TO)/config/crd/bases $(GENERATE_TO)/docs/reference
	$(GO_TOOL) controller-gen object crd:generateEmbeddedObjectMeta=true paths=./api/... \
		output:object:dir=$(GENERATE_TO)/api/v1alpha1 output:crd:dir=$(GENERATE_TO)/config/crd/bases
	$(GO_TOOL) crd-ref-docs --source-path=api --config=docs/reference/crd-ref-docs.yaml --renderer=markdown \
		--output-path=$(GENERATE_TO)/docs/reference/api.md --log-level=ERROR
	go run ./hack/conditionsdoc api/v1alpha1/conditions.go > $(GENERATE_TO)/docs/reference/conditions.md
	@mkdir -p $(GENERATE_TO)/connectors/catalog
	go run ./hack/catalogdoc $(GENERATE_TO)/config/crd/bases/bus.metip.dev_connectors.yaml $(GENERATE_TO)/config/crd/bases/bus.metip.dev_routes.yaml \
		> $(GENERATE_TO)/connectors/catalog/catalog.json

.PHONY: fmt
fmt: ## Format the Go files of every module.
	gofmt -w $$(git ls-files --cached --others --exclude-standard '*.go')

# hack/tools is a list of tools and holds no code.
LINT_MODULES := $(filter-out hack/tools,$(MODULES))

.PHONY: lint
lint: $(LINT_MODULES:%=lint-in-%) ## Run golangci-lint, with the rules for API types, over every module.

.PHONY: $(LINT_MODULES:%=lint-in-%)
$(LINT_MODULES:%=lint-in-%): lint-in-%:
	cd $* && $(GO_TOOL) golangci-lint-kube-api-linter run --config=$(ROOT)/.golangci.yml ./...

.PHONY: verify
verify: ## Check that generated files and go.mod files are current, that lint is clean, and the like.
	$(call go-test,verify,-count=1 -timeout=20m ./test/verify)
