##@ Tests

# What `make test` runs, in this order; a suite is the target verify, or test-<suite>.
SUITES ?= verify unit api integration e2e
# The etcd, kube-apiserver and kubectl of envtest: the local cluster's, unless you have others.
export KUBEBUILDER_ASSETS ?= $(ENVTEST_ASSETS)
# The race detector needs a C compiler.
RACE ?= $(if $(shell command -v $$(go env CC)),-race)

# go-test runs one suite: $(call go-test,<suite>,<flags and packages of go test>,<gotestsum's format>).
define go-test
@mkdir -p $(RESULTS)
$(GO_TOOL) gotestsum --format=$(or $(3),pkgname) --format-hide-empty-pkg --jsonfile=$(RESULTS)/$(1).json -- $(2)
endef

.PHONY: deps
deps: $(if $(filter local,$(CLUSTER_MODE)),cluster-deps) ## Install the Debian packages that the tests need and this machine lacks.
	@hack/deps.sh

.PHONY: test-unit
test-unit: ## Run the unit tests: seconds, once they are built.
	$(call go-test,unit,$(RACE) -timeout=5m $$(go list ./... | grep -v /test/))

.PHONY: test-api
test-api: ## Run the API tests on a real API server: samples, refusals, defaults.
	$(call go-test,api,-count=1 -timeout=5m ./test/api/...)

.PHONY: test-integration
test-integration: ## Run the integration tests: the operator on a real API server with a broker in the test, connectors with real systems.
	$(call go-test,integration,-count=1 -p=1 -timeout=15m ./test/integration/...)

.PHONY: test
test: deps $(if $(filter $(ENVTEST_ASSETS),$(KUBEBUILDER_ASSETS)),envtest-assets) ## Run everything, on a cluster of its own or on yours (KUBECONFIG, CLUSTER=kind); ends with the totals.
	@rm -rf $(RESULTS) && mkdir -p $(RESULTS)
	@for suite in $(SUITES); do \
		echo "=== $$suite"; \
		case $$suite in verify) target=verify ;; *) target=test-$$suite ;; esac; \
		$(MAKE) $$target || echo "=== $$suite failed"; \
	done
	@go run ./hack/testsum $(RESULTS) $(SUITES)
