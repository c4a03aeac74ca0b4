package schema

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/metip/metip/connectors/sdk"
)

// home is the address of the schema, against which relative references are resolved.
const home = "metip:///schema"

// node is one schema, ready to judge by. What is not set asks nothing.
type node struct {
	// at is the JSON pointer of the node within the schema.
	at                string
	never             bool
	types             kinds
	integer           bool
	constant          *constants
	enum              *constants
	format            *jsonschema.Format
	refs              []*node
	minimum, maximum  *bound
	multipleOf        *factor
	minLength         int
	maxLength         int
	pattern           *pattern
	object            *objectRules
	array             *arrayRules
	not               *node
	allOf, anyOf      []*node
	oneOf             []*node
	condition         *node
	consequent        *node
	alternative       *node
	unevaluatedProps  *node
	unevaluatedItems  *node
	state             visit
	judgesUnevaluated bool
}

// objectRules of a node.
type objectRules struct {
	minProperties, maxProperties int
	required                     []string
	properties                   []property
	// named has the properties by name; nil where nobody has to know which they are.
	named         map[string]struct{}
	patterns      []patternProperty
	additional    *node
	propertyNames *node
	dependents    []dependent
}

type property struct {
	name string
	node *node
}

type patternProperty struct {
	pattern *pattern
	node    *node
}

// dependent rules apply where the property is there.
type dependent struct {
	property string
	required []string
	node     *node
}

// arrayRules of a node.
type arrayRules struct {
	minItems, maxItems       int
	unique                   bool
	prefix                   []*node
	items                    *node
	contains                 *node
	minContains, maxContains int
	// containsEvaluates: what contains takes counts as evaluated.
	containsEvaluates bool
}

// kinds is a set of JSON types.
type kinds uint8

const (
	kindNull kinds = 1 << iota
	kindBoolean
	kindNumber
	kindString
	kindArray
	kindObject
)

// visit is how far a search for cycles has come with a node.
type visit uint8

const (
	unseen visit = iota
	open
	done
)

// compile with the library, and take over what it has found.
func compile(text string) (*node, error) {
	if err := sdk.CheckJSON([]byte(text)); err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	s := survey{anchors: map[string]int{}}
	if err := s.value(doc, ""); err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseRegexpEngine(func(text string) (jsonschema.Regexp, error) { return compilePattern(text) })
	c.UseLoader(nowhere{})
	if err := c.AddResource(home, doc); err != nil {
		return nil, err
	}
	compiled, err := c.Compile(home)
	if err != nil {
		return nil, err
	}
	t := translation{survey: s, nodes: map[*jsonschema.Schema]*node{}}
	root := t.node(compiled)
	if t.err != nil {
		return nil, t.err
	}
	return root, findCycle(root)
}

// nowhere loads nothing.
type nowhere struct{}

func (nowhere) Load(string) (any, error) {
	return nil, errors.New("a reference may lead to another place of this schema only: nothing is ever loaded")
}

// survey looks at a schema before the compiler does.
type survey struct {
	objects int
	// anchors counts each $dynamicAnchor; the empty name counts $recursiveAnchor.
	anchors map[string]int
}

func (s *survey) value(v any, at string) error {
	switch v := v.(type) {
	case map[string]any:
		if s.objects++; s.objects > maxObjects {
			return &Error{Message: fmt.Sprintf("the schema has more than %d objects", maxObjects)}
		}
		if name, ok := v["$dynamicAnchor"].(string); ok {
			s.anchors[name]++
		}
		if v["$recursiveAnchor"] == true {
			s.anchors[""]++
		}
		for name, x := range v {
			if err := s.value(x, at+"/"+escape(name)); err != nil {
				return err
			}
			if counts(name) && !isCount(x) {
				return &Error{Pointer: at + "/" + escape(name), Message: "the number is too large for a count"}
			}
		}
	case []any:
		for i, x := range v {
			if err := s.value(x, fmt.Sprintf("%s/%d", at, i)); err != nil {
				return err
			}
		}
	case nil, bool, string:
	default:
		if d, ok := decimalOf(v); !ok || len(d.digits) > maxDigits || d.exponent > maxExponent || d.exponent < -maxExponent {
			return &Error{Pointer: at, Message: fmt.Sprintf("the number has more than %d digits, or an exponent beyond %d", maxDigits, maxExponent)}
		}
	}
	return nil
}

// counts tells the keywords whose value the compiler takes for an int.
func counts(keyword string) bool {
	switch keyword {
	case "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains":
		return true
	}
	return false
}

func isCount(v any) bool {
	d, ok := decimalOf(v)
	return !ok || len(d.digits)+d.exponent <= 15
}

// pattern is a regular expression, and what it costs.
type pattern struct {
	*regexp.Regexp
	instructions int
}

func compilePattern(text string) (*pattern, error) {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("%w (regular expressions are RE2's: https://golang.org/s/re2syntax)", err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(program.Inst) > maxProgram {
		return nil, fmt.Errorf("the regular expression is too large: %d instructions, and at most %d are allowed", len(program.Inst), maxProgram)
	}
	re, err := regexp.Compile(text)
	return &pattern{re, len(program.Inst)}, err
}

// translation of the library's schemas into nodes.
type translation struct {
	survey
	nodes map[*jsonschema.Schema]*node
	err   error
}

func (t *translation) node(s *jsonschema.Schema) *node {
	if s == nil || t.err != nil {
		return nil
	}
	if n := t.nodes[s]; n != nil {
		return n
	}
	_, at, _ := strings.Cut(s.Location, "#")
	n := &node{at: at, minLength: -1, maxLength: -1}
	t.nodes[s] = n
	if s.Bool != nil {
		n.never = !*s.Bool
		return n
	}
	t.types(n, s)
	n.constant, n.enum, n.format = constantsOf(s.Const), enumOf(s.Enum), s.Format
	n.refs = t.references(n, s)
	n.minimum, n.maximum = boundOf(s.Minimum, s.ExclusiveMinimum, 1), boundOf(s.Maximum, s.ExclusiveMaximum, -1)
	n.multipleOf = factorOf(s.MultipleOf)
	n.minLength, n.maxLength = number(s.MinLength), number(s.MaxLength)
	if s.Pattern != nil {
		n.pattern, _ = s.Pattern.(*pattern)
	}
	n.object, n.array = t.object(s), t.array(s)
	n.not, n.allOf, n.anyOf, n.oneOf = t.node(s.Not), t.list(s.AllOf), t.list(s.AnyOf), t.list(s.OneOf)
	n.condition, n.consequent, n.alternative = t.node(s.If), t.node(s.Then), t.node(s.Else)
	n.unevaluatedProps, n.unevaluatedItems = t.node(s.UnevaluatedProperties), t.node(s.UnevaluatedItems)
	n.judgesUnevaluated = n.unevaluatedProps != nil || n.unevaluatedItems != nil
	return n
}

func (t *translation) types(n *node, s *jsonschema.Schema) {
	if s.Types == nil {
		return
	}
	for _, name := range s.Types.ToStrings() {
		if name == "integer" {
			n.integer = true
			continue
		}
		n.types |= kindNamed[name]
	}
	if n.types&kindNumber != 0 {
		n.integer = false
	}
}

var kindNamed = map[string]kinds{
	"null": kindNull, "boolean": kindBoolean, "number": kindNumber, "string": kindString, "array": kindArray, "object": kindObject,
}

// references of all three sorts. A dynamic one leads to the outermost schema with its anchor: where only one has it, to that.
func (t *translation) references(n *node, s *jsonschema.Schema) []*node {
	var out []*node
	if s.Ref != nil {
		out = append(out, t.node(s.Ref))
	}
	if s.RecursiveRef != nil {
		if s.RecursiveRef.RecursiveAnchor && (t.anchors[""] > 1 || !isHome(s.RecursiveRef)) {
			t.err = &Error{Pointer: n.at, Message: "$recursiveRef to an anchor that several schemas have is not supported"}
		}
		out = append(out, t.node(s.RecursiveRef))
	}
	if d := s.DynamicRef; d != nil {
		if d.Anchor != "" && d.Ref.DynamicAnchor == d.Anchor && (t.anchors[d.Anchor] > 1 || !isHome(d.Ref)) {
			t.err = &Error{Pointer: n.at, Message: "$dynamicRef to an anchor that several schemas have is not supported"}
		}
		out = append(out, t.node(d.Ref))
	}
	return out
}

func isHome(s *jsonschema.Schema) bool { return strings.HasPrefix(s.Location, home+"#") }

func (t *translation) list(schemas []*jsonschema.Schema) []*node {
	var out []*node
	for _, s := range schemas {
		out = append(out, t.node(s))
	}
	return out
}

// either a boolean or a schema.
func (t *translation) either(v any, at string) *node {
	switch v := v.(type) {
	case bool:
		return &node{at: at, never: !v, minLength: -1, maxLength: -1}
	case *jsonschema.Schema:
		return t.node(v)
	}
	return nil
}

func (t *translation) object(s *jsonschema.Schema) *objectRules {
	_, at, _ := strings.Cut(s.Location, "#")
	o := &objectRules{
		minProperties: number(s.MinProperties), maxProperties: number(s.MaxProperties), required: s.Required,
		additional: t.either(s.AdditionalProperties, at+"/additionalProperties"), propertyNames: t.node(s.PropertyNames),
	}
	for _, name := range sortedKeys(s.Properties) {
		o.properties = append(o.properties, property{name, t.node(s.Properties[name])})
	}
	for re, x := range s.PatternProperties {
		if p, ok := re.(*pattern); ok {
			o.patterns = append(o.patterns, patternProperty{p, t.node(x)})
		}
	}
	slices.SortFunc(o.patterns, func(a, b patternProperty) int { return strings.Compare(a.pattern.String(), b.pattern.String()) })
	for _, name := range sortedKeys(s.Dependencies) {
		switch x := s.Dependencies[name].(type) {
		case []string:
			o.dependents = append(o.dependents, dependent{property: name, required: x})
		case *jsonschema.Schema:
			o.dependents = append(o.dependents, dependent{property: name, node: t.node(x)})
		}
	}
	for _, name := range sortedKeys(s.DependentRequired) {
		o.dependents = append(o.dependents, dependent{property: name, required: s.DependentRequired[name]})
	}
	for _, name := range sortedKeys(s.DependentSchemas) {
		o.dependents = append(o.dependents, dependent{property: name, node: t.node(s.DependentSchemas[name])})
	}
	if o.additional != nil {
		o.named = make(map[string]struct{}, len(o.properties))
		for _, p := range o.properties {
			o.named[p.name] = struct{}{}
		}
	}
	if o.minProperties < 0 && o.maxProperties < 0 && len(o.required) == 0 && len(o.properties) == 0 && len(o.patterns) == 0 &&
		o.additional == nil && o.propertyNames == nil && len(o.dependents) == 0 {
		return nil
	}
	return o
}

func (t *translation) array(s *jsonschema.Schema) *arrayRules {
	_, at, _ := strings.Cut(s.Location, "#")
	a := &arrayRules{
		minItems: number(s.MinItems), maxItems: number(s.MaxItems), unique: s.UniqueItems,
		prefix: t.list(s.PrefixItems), items: t.node(s.Items2020), contains: t.node(s.Contains),
		minContains: number(s.MinContains), maxContains: number(s.MaxContains), containsEvaluates: s.DraftVersion >= 2020,
	}
	switch items := s.Items.(type) {
	case *jsonschema.Schema:
		a.items = t.node(items)
	case []*jsonschema.Schema:
		a.prefix, a.items = t.list(items), t.either(s.AdditionalItems, at+"/additionalItems")
	}
	if a.minContains < 0 {
		a.minContains = 1
	}
	if a.minItems < 0 && a.maxItems < 0 && !a.unique && len(a.prefix) == 0 && a.items == nil && a.contains == nil {
		return nil
	}
	return a
}

// inPlace are the nodes that judge the same value as n.
func (n *node) inPlace() []*node {
	out := slices.Concat(n.refs, n.allOf, n.anyOf, n.oneOf, []*node{n.not, n.condition, n.consequent, n.alternative})
	if n.object != nil {
		for _, d := range n.object.dependents {
			out = append(out, d.node)
		}
	}
	return slices.DeleteFunc(out, func(x *node) bool { return x == nil })
}

// below are the nodes that judge parts of the value.
func (n *node) below() []*node {
	out := []*node{n.unevaluatedProps, n.unevaluatedItems}
	if o := n.object; o != nil {
		out = append(out, o.additional, o.propertyNames)
		for _, p := range o.properties {
			out = append(out, p.node)
		}
		for _, p := range o.patterns {
			out = append(out, p.node)
		}
	}
	if a := n.array; a != nil {
		out = append(append(out, a.items, a.contains), a.prefix...)
	}
	return slices.DeleteFunc(out, func(x *node) bool { return x == nil })
}

// findCycle of references that lead back to where they came from without going down in the document: judging would never end.
func findCycle(root *node) error {
	roots := []*node{root}
	for len(roots) > 0 {
		n := roots[len(roots)-1]
		roots = roots[:len(roots)-1]
		if n.state != unseen {
			continue
		}
		if err := n.walk(&roots); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) walk(roots *[]*node) error {
	if n.state == open {
		return &Error{Pointer: n.at, Message: "the schema refers to itself without going down in the document: judging would never end"}
	}
	if n.state == done {
		return nil
	}
	n.state = open
	for _, x := range n.inPlace() {
		if err := x.walk(roots); err != nil {
			return err
		}
	}
	n.state = done
	*roots = append(*roots, n.below()...)
	return nil
}

func number(n *int) int {
	if n == nil {
		return -1
	}
	return max(0, *n)
}

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// boundOf an inclusive and an exclusive limit, the tighter one; sign is 1 for a minimum.
func boundOf(inclusive, exclusive *big.Rat, sign int) *bound {
	switch {
	case inclusive == nil && exclusive == nil:
		return nil
	case exclusive != nil && (inclusive == nil || exclusive.Cmp(inclusive)*sign >= 0):
		return newBound(exclusive, true)
	default:
		return newBound(inclusive, false)
	}
}
