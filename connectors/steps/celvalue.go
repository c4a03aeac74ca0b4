package steps

import (
	"encoding/json"
	"fmt"
	"strconv"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// adapter adds what sdk.Message.Body holds and CEL does not know: numbers kept as text.
type adapter struct{ types.Adapter }

func (a adapter) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case json.Number:
		return number(v)
	case map[string]any:
		return types.NewStringInterfaceMap(a, v)
	case []any:
		return types.NewDynamicList(a, v)
	case map[string]string:
		return types.NewStringStringMap(a, v)
	default:
		return a.Adapter.NativeToValue(v)
	}
}

func number(n json.Number) ref.Val {
	if u, err := strconv.ParseUint(string(n), 10, 64); err == nil {
		return types.Uint(u)
	}
	f, err := n.Float64()
	if err != nil {
		return types.NewErr("a number is beyond what an expression can hold")
	}
	return types.Double(f)
}

// plain makes a Go value of a CEL value.
func plain(v ref.Val) (any, error) {
	switch v := v.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return int64(v), nil
	case types.Uint:
		return uint64(v), nil
	case types.Double:
		return float64(v), nil
	case types.String:
		return string(v), nil
	case types.Bytes:
		return []byte(v), nil
	case types.Timestamp:
		return v.Time, nil
	case types.Duration:
		return v.Duration, nil
	case traits.Mapper:
		return plainMap(v)
	case traits.Lister:
		return plainList(v)
	default:
		return nil, fmt.Errorf("the expression yields %s, which is no value", v.Type().TypeName())
	}
}

func plainMap(m traits.Mapper) (any, error) {
	if native, ok := m.Value().(map[string]any); ok {
		return native, nil
	}
	out := map[string]any{}
	for it := m.Iterator(); it.HasNext() == types.True; {
		k := it.Next()
		name, ok := k.(types.String)
		if !ok {
			return nil, fmt.Errorf("the expression yields a map with a key of type %s, not string", k.Type().TypeName())
		}
		v, err := plain(m.Get(k))
		if err != nil {
			return nil, err
		}
		out[string(name)] = v
	}
	return out, nil
}

func plainList(l traits.Lister) (any, error) {
	if native, ok := l.Value().([]any); ok {
		return native, nil
	}
	out := []any{}
	for it := l.Iterator(); it.HasNext() == types.True; {
		v, err := plain(it.Next())
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}
