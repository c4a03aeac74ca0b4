package kube

import "testing"

func TestPath(t *testing.T) {
	for manifest, want := range map[string]string{
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}":                                                "/api/v1/namespaces/b/pods/a",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}":                                                        "/api/v1/namespaces/a",
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: 'x:y'}":                        "/apis/rbac.authorization.k8s.io/v1/clusterroles/x:y",
		"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, namespace: b}\nports: [{port: 1}]": "/apis/discovery.k8s.io/v1/namespaces/b/endpointslices/a",
	} {
		if got, err := Path([]byte(manifest)); err != nil || got != want {
			t.Errorf("got %s (%v), want %s", got, err, want)
		}
	}
	for _, manifest := range []string{"kind: Unknown\nmetadata: {name: a}", "kind: Pod", "not: [yaml"} {
		if got, err := Path([]byte(manifest)); err == nil {
			t.Errorf("%q gave %s", manifest, got)
		}
	}
}

func TestMessage(t *testing.T) {
	for body, want := range map[string]string{
		`{"kind":"Status","message":"pods \"x\" is forbidden"}`: `pods "x" is forbidden`,
		" plain text\n": "plain text",
		"{}":            "{}",
	} {
		if got := message([]byte(body)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
