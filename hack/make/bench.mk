# The bench: figures of MetIP beside the smallest hand-written pipeline and raw NATS, and of the operator. BENCH_FLAGS picks flows
# (-flows pipeline), shortens (-short) or takes profiles (-profile out/profile); `go run ./test/bench -h` lists them.

BENCH_FLAGS ?=

##@ Bench

.PHONY: bench
bench: $(if $(KUBEBUILDER_ASSETS),,envtest-assets) ## Measure: a table, and out/bench.json. BENCH_FLAGS='-flows pipeline -short' to pick and shorten.
	@go run ./test/bench $(BENCH_FLAGS)
