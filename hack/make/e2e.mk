# The end-to-end suite, on the cluster that hack/make/cluster.mk chooses. E2E_FOCUS picks specs by a regular expression.

E2E_FOCUS ?=

.PHONY: test-e2e
test-e2e: images-load ## Run the end-to-end tests on a real cluster: the demo's flow, kills, outages, poison, truthful status, deletion.
	$(call go-test,e2e,-count=1 -p=1 -timeout=45m $(if $(E2E_FOCUS),./test/e2e -ginkgo.v -ginkgo.focus='$(E2E_FOCUS)',./test/cluster/... ./test/demo/... ./test/e2e))
test-e2e: export METIP_ROOT := $(ROOT)
test-e2e: export KUBECTL := $(KUBECTL)
test-e2e: export IMG := $(IMG)
test-e2e: export DEMO_IMG := $(DEMO_IMG)
test-e2e: export KUBECONFIG := $(KUBECONFIG_FILE)
