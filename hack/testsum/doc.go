// Testsum adds up what the suites of `make test` left in out/test and prints one line: N passed, N failed, N skipped. It counts
// leaf tests and Ginkgo's specs. A suite that left nothing counts as failed. Its exit status is 1 when anything failed.
package main
