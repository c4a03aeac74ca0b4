package rawjson

// Valid tells whether the document is one JSON value, nested no deeper than MaxDepth, and nothing more.
func Valid(doc []byte) bool {
	end := Skip(doc, Space(doc, 0), 0)
	return end != Invalid && Space(doc, end) == len(doc)
}

// Skip steps over the value that begins at doc[at]; depth is how many arrays and objects it is within.
func Skip(doc []byte, at, depth int) int {
	if at < len(doc) && (doc[at] == '{' || doc[at] == '[') {
		s := skipper{doc: doc, at: at, limit: MaxDepth - depth}
		return s.container()
	}
	return scalar(doc, at)
}

// skipper steps over an array or object without recursion.
type skipper struct {
	doc          []byte
	at           int
	depth, limit int
	// objects has a bit for each open container: set for an object.
	objects [MaxDepth / 64]uint64
}

func (s *skipper) container() int {
	for {
		// A value begins.
		if s.at >= len(s.doc) {
			return Invalid
		}
		if c := s.doc[s.at]; c == '{' || c == '[' {
			empty, ok := s.open(c)
			if !ok {
				return Invalid
			}
			if !empty {
				continue
			}
		} else if s.at = scalar(s.doc, s.at); s.at == Invalid {
			return Invalid
		}
		if more, ok := s.next(); !more {
			if !ok {
				return Invalid
			}
			return s.at
		}
	}
}

// open a container, and step to its first value. An empty one is closed again.
func (s *skipper) open(c byte) (empty, ok bool) {
	if s.depth == s.limit {
		return false, false
	}
	bit := uint64(1) << (s.depth & 63)
	if s.objects[s.depth>>6] &^= bit; c == '{' {
		s.objects[s.depth>>6] |= bit
	}
	s.depth++
	if s.at = Space(s.doc, s.at+1); s.at >= len(s.doc) {
		return false, false
	}
	if s.doc[s.at] == c+2 { // '{' and '}', '[' and ']' are two apart
		s.depth--
		s.at++
		return true, true
	}
	return false, c == '[' || s.name()
}

// next closes containers and steps over a comma; more says that a value must follow. Otherwise the outermost has ended, well or not.
func (s *skipper) next() (more, ok bool) {
	for s.depth > 0 {
		if s.at = Space(s.doc, s.at); s.at >= len(s.doc) {
			return false, false
		}
		object := s.objects[(s.depth-1)>>6]>>((s.depth-1)&63)&1 == 1
		switch c := s.doc[s.at]; {
		case c == ',':
			s.at = Space(s.doc, s.at+1)
			return !object || s.name(), false
		case c == '}' && object, c == ']' && !object:
			s.depth--
			s.at++
		default:
			return false, false
		}
	}
	return false, true
}

func (s *skipper) name() bool {
	_, s.at, _ = Name(s.doc, s.at)
	return s.at != Invalid
}
