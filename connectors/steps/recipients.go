package steps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// recipientStep lets a message pass whose list of recipients has the destination's name in it. The list is computed in the pods of every
// destination: from the same message by the same expression, so that they agree.
type recipientStep struct {
	list         *Body
	destination  string
	destinations []string
}

func compileRecipients(r *contract.RecipientList) (*recipientStep, error) {
	list, err := CompileBody(r.CEL)
	if err != nil {
		return nil, err
	}
	return &recipientStep{list: list, destination: r.Destination, destinations: r.Destinations}, nil
}

func (s *recipientStep) Apply(_ context.Context, m *sdk.Message) (pass bool, err error) {
	v, err := s.list.make(m)
	if err != nil {
		return false, err
	}
	list, ok := v.([]any)
	if !ok {
		return false, errors.New("the expression yields no list of names")
	}
	for _, x := range list {
		name, ok := x.(string)
		if !ok {
			return false, errors.New("the list holds something else than names")
		}
		if !slices.Contains(s.destinations, name) {
			return false, fmt.Errorf("the list names %.60q, which is none of the Route's destinations that it can choose: %s", name, strings.Join(s.destinations, ", "))
		}
		pass = pass || name == s.destination
	}
	return pass, nil
}
