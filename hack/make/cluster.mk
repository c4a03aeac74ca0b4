# The cluster that tests and the demo run on, and the images that run on it.
#
#   CLUSTER=local (default)  a real single-node Kubernetes that hack/cluster makes on this machine; needs root
#   CLUSTER=kind             a kind cluster called KIND_CLUSTER
#   KUBECONFIG=<file>        a cluster of yours: none is made and no image is loaded
#
# For the other Makefile fragments: KUBECONFIG_FILE is the cluster's kubeconfig, KUBECTL the kubectl to use,
# CLUSTER_PATH a search path that has it, ENVTEST_ASSETS what envtest takes as KUBEBUILDER_ASSETS.

CLUSTER      ?= local
KIND         ?= kind
KIND_CLUSTER ?= metip
IMG          ?= localhost/metip:dev
DEMO_IMG     ?= localhost/metip-demo:dev
IMG_LDFLAGS  ?= -s -w

BIN_DIR          := $(ROOT)/out/bin
ENVTEST_ASSETS   := $(BIN_DIR)
CLUSTER_TOOL     := $(BIN_DIR)/cluster
CLUSTER_PATH     := $(BIN_DIR):$(PATH)
LOCAL_KUBECONFIG := $(ROOT)/out/cluster/admin.conf
KIND_KUBECONFIG  := $(ROOT)/out/kind.conf
IMAGE_DIR        := $(ROOT)/out/images
METIP_TAR        := $(IMAGE_DIR)/metip.tar
DEMO_TAR         := $(IMAGE_DIR)/demo.tar
# The custom connector of docs/connectors/custom.md: Node.js, its libraries and the program; only where there is a Node.js.
REGISTRY_IMG     := localhost/metip-registry:dev
REGISTRY_TAR     := $(IMAGE_DIR)/registry.tar
REGISTRY_PROGRAM := connectors/sdk/walkthrough/node/registry.mjs
DEMO_MAIN        := test/demo/cmd/demo

# A KUBECONFIG that is the local cluster's own (`eval "$(out/bin/cluster env)"`) changes nothing.
USER_KUBECONFIG  := $(filter-out $(LOCAL_KUBECONFIG) $(KIND_KUBECONFIG),$(KUBECONFIG))

ifeq ($(CLUSTER),kind)
  CLUSTER_MODE    := $(if $(USER_KUBECONFIG),kind-existing,kind)
  KUBECONFIG_FILE := $(or $(USER_KUBECONFIG),$(KIND_KUBECONFIG))
else ifneq ($(USER_KUBECONFIG),)
  CLUSTER_MODE    := existing
  KUBECONFIG_FILE := $(USER_KUBECONFIG)
else ifeq ($(CLUSTER),local)
  CLUSTER_MODE    := local
  KUBECONFIG_FILE := $(LOCAL_KUBECONFIG)
else
  $(error CLUSTER=$(CLUSTER) is unknown: use CLUSTER=local, CLUSTER=kind or set KUBECONFIG)
endif

# Ours costs a build of Kubernetes, so that another cluster is served by the machine's kubectl where it has one.
ifeq ($(CLUSTER_MODE),local)
  KUBECTL ?= $(BIN_DIR)/kubectl
else
  KUBECTL ?= $(or $(shell command -v kubectl 2>/dev/null),$(BIN_DIR)/kubectl)
endif

##@ Cluster

.PHONY: cluster-tool
cluster-tool: ## Build hack/cluster, the tool that makes the cluster.
	@mkdir -p $(BIN_DIR)
	@cd $(ROOT)/hack/cluster && GOWORK=off CGO_ENABLED=0 go build -trimpath -o $(CLUSTER_TOOL) .

.PHONY: cluster-deps
cluster-deps: cluster-tool ## Install the Debian packages that the local cluster needs and this machine lacks.
	@$(CLUSTER_TOOL) -root $(ROOT) deps

.PHONY: cluster-build
cluster-build: cluster-tool ## Build Kubernetes, etcd, containerd and CoreDNS into out/bin (ten minutes once, then nothing).
	@$(CLUSTER_TOOL) -root $(ROOT) build

.PHONY: envtest-assets
envtest-assets: cluster-build ## Build what envtest needs (etcd, kube-apiserver, kubectl); KUBEBUILDER_ASSETS is out/bin.

.PHONY: cluster-up
.PHONY: cluster-down
.PHONY: cluster-status
.PHONY: images-load

cluster-up: ## Start the cluster (CLUSTER=local or kind); with KUBECONFIG set only check that yours answers.
cluster-down: ## Stop the cluster that cluster-up made and leave nothing behind.
cluster-status: ## Say what of the cluster runs.
images-load: ## Build the images and load them into the cluster.

ifeq ($(CLUSTER_MODE),local)

cluster-up: cluster-build
	@$(CLUSTER_TOOL) -root $(ROOT) up

cluster-down: cluster-tool
	@$(CLUSTER_TOOL) -root $(ROOT) down

cluster-status: cluster-tool
	@$(CLUSTER_TOOL) -root $(ROOT) status

images-load: images cluster-up
	@$(CLUSTER_TOOL) -root $(ROOT) load $(METIP_TAR) $(if $(wildcard $(ROOT)/$(DEMO_MAIN)/*.go),$(DEMO_TAR)) $$(ls $(REGISTRY_TAR) 2>/dev/null)

else ifeq ($(CLUSTER_MODE),kind)

cluster-up:
	@mkdir -p $(dir $(KIND_KUBECONFIG))
	@$(KIND) get clusters | grep -qx $(KIND_CLUSTER) || $(KIND) create cluster --name $(KIND_CLUSTER) --wait 120s
	@$(KIND) export kubeconfig --name $(KIND_CLUSTER) --kubeconfig $(KUBECONFIG_FILE)

cluster-down:
	@$(KIND) delete cluster --name $(KIND_CLUSTER)
	@rm -f $(KIND_KUBECONFIG)

else

cluster-down:
	@echo "the cluster of $(KUBECONFIG_FILE) was not made here and stays as it is"

cluster-up: cluster-status

endif

ifneq ($(CLUSTER_MODE),local)

cluster-status:
	@$(KUBECTL) --kubeconfig $(KUBECONFIG_FILE) get --raw /readyz >/dev/null || \
	  { echo "the cluster of KUBECONFIG=$(KUBECONFIG_FILE) does not answer; check it with: $(KUBECTL) --kubeconfig $(KUBECONFIG_FILE) version" >&2; exit 1; }
	@echo "the cluster of $(KUBECONFIG_FILE) answers"

endif

ifneq ($(filter kind kind-existing,$(CLUSTER_MODE)),)

images-load: images cluster-up
	@$(KIND) load image-archive --name $(KIND_CLUSTER) $(METIP_TAR)
	@$(if $(wildcard $(ROOT)/$(DEMO_MAIN)/*.go),$(KIND) load image-archive --name $(KIND_CLUSTER) $(DEMO_TAR))

else ifeq ($(CLUSTER_MODE),existing)

images-load:
	@echo "KUBECONFIG is set, so no image is loaded: push $(METIP_TAR) (make images) as IMG to where your cluster pulls from; IMG=$(IMG)"

endif

.PHONY: cluster-test
cluster-test: cluster-build ## Test hack/cluster: its units, then a real cluster started, used, crashed and stopped.
	@cd $(ROOT)/hack/cluster && GOWORK=off go vet ./... && GOWORK=off go test ./...
	@$(CLUSTER_TOOL) -root $(ROOT) selftest

##@ Images

.PHONY: images
images: cluster-tool ## Build the container images into out/images, without a container engine.
	@mkdir -p $(IMAGE_DIR)/bin
	@cd $(ROOT) && CGO_ENABLED=0 GOOS=linux go build -trimpath -ldflags "$(IMG_LDFLAGS)" -o $(IMAGE_DIR)/bin/ \
	  ./cmd/manager ./cmd/connector github.com/nats-io/nats-server/v2
	@$(CLUSTER_TOOL) -root $(ROOT) image -name $(IMG) -out $(METIP_TAR) -entry /manager \
	  /manager=$(IMAGE_DIR)/bin/manager /connector=$(IMAGE_DIR)/bin/connector /nats-server=$(IMAGE_DIR)/bin/nats-server
ifneq ($(wildcard $(ROOT)/$(DEMO_MAIN)/*.go),)
	@cd $(ROOT) && CGO_ENABLED=0 GOOS=linux go build -trimpath -ldflags "$(IMG_LDFLAGS)" -o $(IMAGE_DIR)/bin/ ./$(DEMO_MAIN)
	@$(CLUSTER_TOOL) -root $(ROOT) image -name $(DEMO_IMG) -out $(DEMO_TAR) -entry /demo /demo=$(IMAGE_DIR)/bin/demo
else
	@echo "no $(DEMO_MAIN): the demo image $(DEMO_IMG) is left out"
endif
	@rm -f $(REGISTRY_TAR); ! node=$$(command -v node) || $(CLUSTER_TOOL) -root $(ROOT) image -name $(REGISTRY_IMG) -out $(REGISTRY_TAR) -entry /usr/bin/node \
	  /usr/bin/node=$$(readlink -f $$node) /app/registry.mjs=$(ROOT)/$(REGISTRY_PROGRAM) $$(ldd $$node | awk '$$3 ~ /^\// {print $$3 "=" $$3} $$1 ~ /^\// {print $$1 "=" $$1}')
