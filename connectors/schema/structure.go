package schema

import "slices"

// evaluated is what has been judged of an object or array by the nodes for it, for those that judge the rest.
type evaluated struct {
	all bool
	// names of members; items before upTo, and those in items.
	names map[string]struct{}
	upTo  int
	items map[int]struct{}
}

func (s *evaluated) name(name string) {
	if s == nil || s.all {
		return
	}
	if s.names == nil {
		s.names = map[string]struct{}{}
	}
	s.names[name] = struct{}{}
}

func (s *evaluated) item(i int) {
	if s == nil || s.all {
		return
	}
	if s.items == nil {
		s.items = map[int]struct{}{}
	}
	s.items[i] = struct{}{}
}

func (s *evaluated) first(n int) {
	if s != nil {
		s.upTo = max(s.upTo, n)
	}
}

func (s *evaluated) everything() {
	if s != nil {
		s.all = true
	}
}

func (s *evaluated) add(x *evaluated) {
	s.all = s.all || x.all
	s.upTo = max(s.upTo, x.upTo)
	for name := range x.names {
		s.name(name)
	}
	for i := range x.items {
		s.item(i)
	}
}

// member judges a member's value.
func (e *evaluation) member(n *node, name string, v any) bool {
	e.path = append(e.path, token{name: name, index: -1})
	ok := e.value(n, v, nil)
	e.path = e.path[:len(e.path)-1]
	return ok
}

// item judges an item's value.
func (e *evaluation) item(n *node, i int, v any) bool {
	e.path = append(e.path, token{index: i})
	ok := e.value(n, v, nil)
	e.path = e.path[:len(e.path)-1]
	return ok
}

func (e *evaluation) object(o *objectRules, v map[string]any, seen *evaluated) bool {
	if o.minProperties >= 0 && len(v) < o.minProperties {
		return e.fail("minProperties: %d", o.minProperties)
	}
	if o.maxProperties >= 0 && len(v) > o.maxProperties {
		return e.fail("maxProperties: %d", o.maxProperties)
	}
	if !e.required(o.required, v, "required") {
		return false
	}
	for i := range o.properties {
		p := &o.properties[i]
		x, ok := v[p.name]
		if !ok {
			continue
		}
		if !e.member(p.node, p.name, x) {
			return false
		}
		seen.name(p.name)
	}
	if (len(o.patterns) > 0 || o.additional != nil || o.propertyNames != nil) && !e.otherMembers(o, v, seen) {
		return false
	}
	for i := range o.dependents {
		d := &o.dependents[i]
		if _, ok := v[d.property]; !ok {
			continue
		}
		if !e.required(d.required, v, "dependentRequired") || d.node != nil && !e.value(d.node, v, seen) {
			return false
		}
	}
	return true
}

func (e *evaluation) required(names []string, v map[string]any, keyword string) bool {
	if !e.step(len(names) / 16) {
		return false
	}
	for _, name := range names {
		if _, ok := v[name]; !ok {
			return e.fail("%s: %q", keyword, name)
		}
	}
	return true
}

// otherMembers judges members by what concerns those that no property names. Of several that break a rule the first by name is told, so that
// one document always breaks the same.
func (e *evaluation) otherMembers(o *objectRules, v map[string]any, seen *evaluated) bool {
	if e.quiet == 0 && len(v) > 1 {
		for _, name := range sortedKeys(v) {
			if !e.otherMember(o, name, v[name], seen) {
				return false
			}
		}
		return true
	}
	for name, x := range v {
		if !e.otherMember(o, name, x, seen) {
			return false
		}
	}
	return true
}

func (e *evaluation) otherMember(o *objectRules, name string, x any, seen *evaluated) bool {
	if !e.step(1) {
		return false
	}
	if o.propertyNames != nil {
		e.path = append(e.path, token{name: name, index: -1})
		e.quiet++
		ok := e.value(o.propertyNames, name, nil)
		e.quiet--
		if !ok {
			e.fail("propertyNames")
		}
		e.path = e.path[:len(e.path)-1]
		if !ok {
			return false
		}
	}
	_, known := o.named[name]
	for i := range o.patterns {
		p := &o.patterns[i]
		matches, ok := e.match(p.pattern, name)
		if !ok {
			return false
		}
		if !matches {
			continue
		}
		if !e.member(p.node, name, x) {
			return false
		}
		known = true
		seen.name(name)
	}
	if known || o.additional == nil {
		return true
	}
	if o.additional.never {
		e.path = append(e.path, token{name: name, index: -1})
		e.fail("additionalProperties: false")
		e.path = e.path[:len(e.path)-1]
		return false
	}
	seen.name(name)
	return e.member(o.additional, name, x)
}

func (e *evaluation) array(a *arrayRules, v []any, seen *evaluated) bool {
	if a.minItems >= 0 && len(v) < a.minItems {
		return e.fail("minItems: %d", a.minItems)
	}
	if a.maxItems >= 0 && len(v) > a.maxItems {
		return e.fail("maxItems: %d", a.maxItems)
	}
	prefix := min(len(a.prefix), len(v))
	for i, x := range v[:prefix] {
		if !e.item(a.prefix[i], i, x) {
			return false
		}
	}
	seen.first(prefix)
	if a.items != nil {
		for i, x := range v[prefix:] {
			if !e.item(a.items, prefix+i, x) {
				return false
			}
		}
		seen.everything()
	}
	if a.contains != nil && !e.contains(a, v, seen) {
		return false
	}
	if a.unique && len(v) > 1 {
		if i := e.duplicate(v); i >= 0 {
			e.path = append(e.path, token{index: i})
			e.fail("uniqueItems")
			e.path = e.path[:len(e.path)-1]
			return false
		}
	}
	return e.stopped == nil
}

func (e *evaluation) contains(a *arrayRules, v []any, seen *evaluated) bool {
	fit := 0
	for i, x := range v {
		if !e.quietly(a.contains, x, nil) {
			if e.stopped != nil {
				return false
			}
			continue
		}
		fit++
		if a.containsEvaluates {
			seen.item(i)
		}
		if a.maxContains >= 0 && fit > a.maxContains {
			return e.fail("maxContains: %d", a.maxContains)
		}
		if a.maxContains < 0 && seen == nil && fit >= a.minContains {
			break
		}
	}
	if fit < a.minContains {
		return e.fail("contains: at least %d", a.minContains)
	}
	return true
}

// unevaluated judges what no other rule for the value has judged.
func (e *evaluation) unevaluated(n *node, v any, seen *evaluated) bool {
	switch v := v.(type) {
	case map[string]any:
		if n.unevaluatedProps == nil {
			return true
		}
		names := sortedKeys(v)
		if seen.all {
			names = nil
		}
		names = slices.DeleteFunc(names, func(name string) bool { _, ok := seen.names[name]; return ok })
		for _, name := range names {
			if !e.member(n.unevaluatedProps, name, v[name]) {
				return false
			}
		}
		seen.everything()
	case []any:
		if n.unevaluatedItems == nil || seen.all {
			return true
		}
		for i := min(seen.upTo, len(v)); i < len(v); i++ {
			if _, ok := seen.items[i]; !ok && !e.item(n.unevaluatedItems, i, v[i]) {
				return false
			}
		}
		seen.everything()
	}
	return true
}
