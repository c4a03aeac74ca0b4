package operator_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metip/metip/api/v1alpha1"
)

// conditionTypes of each kind, as its status documents them.
var conditionTypes = map[string][]string{
	"*v1alpha1.Broker":      {"Accepted", "ResolvedRefs", "Deployed", "Connected", "StorageHealthy", "Ready"},
	"*v1alpha1.Integration": {"Accepted", "ResolvedRefs", "Programmed", "StorageHealthy", "Suspended", "Ready"},
	"*v1alpha1.Connector":   {"Accepted", "ResolvedRefs", "Programmed", "Deployed", "Connected", "Suspended", "Ready"},
	"*v1alpha1.Route":       {"Accepted", "ResolvedRefs", "Programmed", "Connected", "Suspended", "Ready"},
	"*v1alpha1.Replay":      {"Accepted", "ResolvedRefs", "Programmed", "Suspended", "Complete", "Ready"},
}

// reasons that api/v1alpha1/conditions.go documents.
func reasons() map[string]string {
	GinkgoHelper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "api", "v1alpha1", "conditions.go"), nil, parser.ParseComments)
	Expect(err).NotTo(HaveOccurred())
	out := map[string]string{}
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range decl.Specs {
			v, ok := s.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(v.Names[0].Name, "Reason") {
				continue
			}
			out[strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`)] = v.Doc.Text()
		}
	}
	return out
}

var where = regexp.MustCompile(`^Reason\w+ \(([^)]*)\)`)

// documented tells whether a reason is documented for a condition. Ready, Reconciling and Stalled repeat others' reasons.
func documented(doc, condition string) bool {
	m := where.FindStringSubmatch(doc)
	if m == nil {
		return false
	}
	switch condition {
	case v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled:
		return true
	}
	return strings.Contains(m[1], condition) || strings.HasPrefix(m[1], "any")
}

// check every object that a spec leaves: only documented conditions and reasons, each with the generation that it speaks of, and sense.
var _ = AfterEach(func(ctx SpecContext) {
	docs := reasons()
	for _, obj := range all(ctx) {
		checkConditions(ctx, docs, obj)
	}
})

func checkConditions(_ context.Context, docs map[string]string, obj client.Object) {
	GinkgoHelper()
	list := conditionsOf(obj)
	if len(list) == 1 && list[0].ObservedGeneration == 0 {
		return // not seen yet
	}
	kind := typeName(obj)
	seen := map[string]bool{}
	for _, c := range list {
		seen[c.Type] = true
		Expect(docs).To(HaveKey(c.Reason), "%s %s: %s", kind, obj.GetName(), c.Type)
		Expect(documented(docs[c.Reason], c.Type)).To(BeTrue(), "%s %s: reason %s is not documented for %s", kind, obj.GetName(), c.Reason, c.Type)
		Expect(c.ObservedGeneration).To(BeNumerically(">", 0), "%s %s: %s", kind, obj.GetName(), c.Type)
		if c.Status != "True" && c.Type != v1alpha1.ConditionSuspended {
			Expect(c.Message).NotTo(BeEmpty(), "%s %s: %s is %s/%s and says nothing", kind, obj.GetName(), c.Type, c.Status, c.Reason)
		}
		Expect(c.Message).NotTo(ContainSubstring("planted"), "a secret in a status")
		switch c.Type {
		case v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled, v1alpha1.ConditionFailed:
			Expect(string(c.Status)).To(Equal("True"), "%s exists while True only", c.Type)
		default:
			Expect(conditionTypes[kind]).To(ContainElement(c.Type), kind)
		}
	}
	Expect(seen["Reconciling"] && seen["Stalled"]).To(BeFalse(), "%s %s", kind, obj.GetName())
	if obj.GetDeletionTimestamp().IsZero() {
		for _, t := range conditionTypes[kind] {
			if b, ok := obj.(*v1alpha1.Broker); ok && b.Spec.External != nil && t == v1alpha1.ConditionDeployed {
				continue // somebody else deployed it
			}
			Expect(seen).To(HaveKey(t), "%s %s has no condition %s", kind, obj.GetName(), t)
		}
	}
}
