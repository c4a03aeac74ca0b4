# The demo: config/samples/demo at work on the cluster that hack/make/cluster.mk chooses.

# Present while there is a cluster that the demo made, so that demo-down takes that one down and no other.
DEMO_MADE_CLUSTER := $(ROOT)/out/demo-made-cluster
DEMO_ENV := METIP_ROOT=$(ROOT) KUBECONFIG=$(KUBECONFIG_FILE) KUBECTL=$(KUBECTL) IMG=$(IMG) DEMO_IMG=$(DEMO_IMG)
DEMO_BIN := $(BIN_DIR)/demo
DEMO_FLAGS ?=

ifeq ($(CLUSTER_MODE),local)
  DEMO_FOUND_CLUSTER = test -d $(ROOT)/out/cluster
else ifeq ($(CLUSTER_MODE),kind)
  DEMO_FOUND_CLUSTER = $(KIND) get clusters 2>/dev/null | grep -qx $(KIND_CLUSTER)
else
  DEMO_FOUND_CLUSTER = true
endif

##@ Demo

# For this machine; the image has one for the node.
.PHONY: demo-build
demo-build: ## Build the demo's program for this machine.
	@mkdir -p $(BIN_DIR)
	@cd $(ROOT) && CGO_ENABLED=0 go build -trimpath -o $(DEMO_BIN) ./$(DEMO_MAIN)

.PHONY: demo
demo: ## Post 1,000 arrests through a real bus and account for each: makes what it needs, or uses your cluster (KUBECONFIG, CLUSTER=kind).
	@mkdir -p $(ROOT)/out
	@$(DEMO_FOUND_CLUSTER) || touch $(DEMO_MADE_CLUSTER)
	@$(MAKE) images-load demo-build
	@$(DEMO_ENV) $(DEMO_BIN) run $(DEMO_FLAGS)

.PHONY: demo-down
demo-down: demo-build ## Remove everything that the demo made, the cluster included when the demo made it.
	@$(DEMO_ENV) $(DEMO_BIN) down
	@if [ -e $(DEMO_MADE_CLUSTER) ]; then $(MAKE) cluster-down && rm -f $(DEMO_MADE_CLUSTER); fi
