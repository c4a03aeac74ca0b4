##@ Tests

# What `make test` runs, in this order; a suite is the target verify, or test-<suite>. Suites that are joined by + run side by side: they wait more than
# they work.
SUITES ?= verify unit-operator unit-connectors unit-tools engine+brokers+systems api integration chaos e2e
# Which packages are whose: those that need servers take longer than a unit test may; e2e.mk names its own; every other test is a unit test.
DATAPLANE   := /connectors/(engine|conformance|sdk/walkthrough)
# The behaviour suites of message brokers take as long as those of all other systems.
BROKERS     := ^Test(AMQP|Kafka|MQTT|NATS|RabbitMQ|STOMP)
INTEGRATION := /controllers/test/|/cmd/manager|/test/integration
NOT_UNIT    := $(INTEGRATION)|/connectors/|/test/(api|chaos|cluster|demo|e2e|verify)
# The etcd, kube-apiserver and kubectl of envtest: the local cluster's, unless you have others.
export KUBEBUILDER_ASSETS ?= $(ENVTEST_ASSETS)
# RACE=-race looks for data races in the connectors, which are concurrent all through; `make test` does if there is a C compiler.
RACE ?=

# go-test runs one suite: $(call go-test,<suite>,<flags and packages of go test>,<gotestsum's format>,<folder>).
define go-test
@mkdir -p $(RESULTS)
$(if $(4),cd $(4) && )$(GO_TOOL) gotestsum --format=$(or $(3),pkgname) --format-hide-empty-pkg --jsonfile=$(RESULTS)/$(1).json -- $(2)
endef

.PHONY: deps
deps: $(if $(filter local,$(CLUSTER_MODE)),cluster-deps) ## Install the Debian packages that the tests need and this machine lacks.
	@hack/deps.sh

.PHONY: test-unit
test-unit: test-unit-operator test-unit-connectors test-unit-tools ## Run the unit tests: seconds, once they are built.

.PHONY: test-unit-operator
test-unit-operator: ## Run the unit tests of everything but the connectors.
	$(call go-test,unit-operator,-timeout=5m $$(go list ./... | grep -Ev '$(NOT_UNIT)'))

.PHONY: test-unit-connectors
test-unit-connectors: ## Run the unit tests of the connectors; RACE=-race finds data races.
	$(call go-test,unit-connectors,$(RACE) -timeout=5m $$(go list ./connectors/... | grep -Ev '$(DATAPLANE)'))

.PHONY: test-unit-tools
test-unit-tools: ## Run the unit tests of hack/cluster, which is a module of its own.
	$(call go-test,unit-tools,-timeout=5m . ./internal/...,,hack/cluster)

.PHONY: test-dataplane
test-dataplane: test-engine test-brokers test-systems ## Run the engine and the behaviour suite of every system, on real brokers and systems; RACE=-race finds data races.

.PHONY: test-engine
test-engine: ## Run the tests of the engine, on real brokers.
	$(call go-test,engine,$(RACE) -timeout=20m ./connectors/engine/...)

.PHONY: test-brokers
test-brokers: ## Run the behaviour suite of the message brokers.
	$(call go-test,brokers,$(RACE) -timeout=25m -run='$(BROKERS)' ./connectors/conformance)

.PHONY: test-systems
test-systems: ## Run the behaviour suite of every other system, and of whole flows.
	$(call go-test,systems,$(RACE) -timeout=25m -skip='$(BROKERS)' ./connectors/conformance/... ./connectors/sdk/walkthrough)

.PHONY: test-api
test-api: ## Run the API tests on a real API server: samples, refusals, defaults.
	$(call go-test,api,-count=1 -timeout=5m ./test/api/...)

.PHONY: test-integration
test-integration: ## Run the integration tests: the operator on a real API server, and real brokers.
	$(call go-test,integration,-count=1 -p=1 -timeout=15m $$(go list ./... | grep -E '$(INTEGRATION)'))

# CHAOS_DURATION of `make chaos`, and of the suite; CHAOS_SEED repeats a run.
CHAOS_DURATION ?= 10m
TEST_CHAOS_DURATION ?= 2m
CHAOS_SEED ?=

.PHONY: chaos
chaos: ## Break pods, brokers, links and systems at random for ten minutes (CHAOS_DURATION, CHAOS_SEED), and count every message.
	@$(MAKE) test-chaos TEST_CHAOS_DURATION=$(CHAOS_DURATION)

.PHONY: test-chaos
test-chaos: ## The same for two minutes.
	$(call go-test,chaos,-count=1 -timeout=4h ./test/chaos -v,standard-verbose)

test-chaos: export METIP_CHAOS_DURATION = $(TEST_CHAOS_DURATION)
test-chaos: export METIP_CHAOS_SEED = $(CHAOS_SEED)

# What make test does after the suites, unless KEEP_CLUSTER is set: a cluster that was not there before goes.
LEAVE_CLUSTER := $(if $(KEEP_CLUSTER),true,$(MAKE) cluster-down)

.PHONY: test
test: deps $(if $(filter $(ENVTEST_ASSETS),$(KUBEBUILDER_ASSETS)),envtest-assets) ## Run everything, on a cluster of its own or on yours (KUBECONFIG, CLUSTER=kind); ends with the totals.
	@rm -rf $(RESULTS) && mkdir -p $(RESULTS)
	@after=true; $(DEMO_FOUND_CLUSTER) || after="$(LEAVE_CLUSTER)"; \
	for suite in $(SUITES); do \
		echo "=== $$suite"; \
		case $$suite in \
		verify) target=verify ;; \
		*+*) target="--jobs --output-sync=target test-$$(echo $$suite | sed 's/+/ test-/g')" ;; \
		*) target=test-$$suite ;; esac; \
		$(MAKE) $$target RACE=$(if $(shell command -v $$(go env CC)),-race) || echo "=== $$suite failed"; \
	done; \
	$$after
	@go run ./hack/testsum $(RESULTS) $(subst +, ,$(SUITES))
