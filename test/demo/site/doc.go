// Package site prepares a namespace for the demo's flow: the secrets, the court's case API and the name of the court's database; and
// renders the manifests of config/samples/demo for it. The demo does so once, the end-to-end suite for each spec.
package site
