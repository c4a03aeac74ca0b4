package apply

// mergeKeys are the members by which the elements of Kubernetes' lists are told apart.
var mergeKeys = []string{"name", "mountPath", "containerPort", "port", "uid", "ip", "key", "topologyKey"}

// Covers tells whether have has everything that want has. What else have has (defaults, what others own) does not matter; in lists of
// objects that have a key, nor do further elements.
func Covers(have, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		h, ok := have.(map[string]any)
		if !ok {
			return len(want) == 0 && have == nil
		}
		for k, w := range want {
			if x, there := h[k]; !there && !empty(w) || there && !Covers(x, w) {
				return false
			}
		}
		return true
	case []any:
		h, ok := have.([]any)
		if !ok {
			return len(want) == 0 && have == nil
		}
		if key := listKey(want); key != "" {
			return coversByKey(h, want, key)
		}
		if len(h) != len(want) {
			return false
		}
		for i := range want {
			if !Covers(h[i], want[i]) {
				return false
			}
		}
		return true
	default:
		return have == want
	}
}

// listKey is the first merge key that every element has, with distinct values.
func listKey(list []any) string {
	for _, key := range mergeKeys {
		seen := map[any]bool{}
		for _, e := range list {
			m, ok := e.(map[string]any)
			if !ok {
				return ""
			}
			switch v := m[key].(type) {
			case string, float64:
				seen[v] = true
			}
		}
		if len(list) > 0 && len(seen) == len(list) {
			return key
		}
	}
	return ""
}

func coversByKey(have, want []any, key string) bool {
	for _, w := range want {
		found := false
		for _, h := range have {
			if m, ok := h.(map[string]any); ok && m[key] == w.(map[string]any)[key] && Covers(h, w) {
				found = true
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}

// empty tells whether a value is one that the API server leaves out.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	case string:
		return v == ""
	case bool:
		return !v
	case float64:
		return v == 0
	}
	return false
}
