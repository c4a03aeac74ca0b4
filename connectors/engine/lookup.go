package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

// lookup reads the entries of a table for a step enrich.
type lookup struct {
	conn *connection
	// prefix of the entries' subjects; get is what stands before one when it is read.
	prefix, get string
}

func newLookup(n *enrichment, integration, table string) *lookup {
	return &lookup{
		conn: n.conn, prefix: contract.TablePrefix(n.namespace, integration, table),
		get: contract.TableGet(n.namespace, integration, table, ""),
	}
}

// entry of a key, as an answer: 404 where there is none. That the subject's digest is the key's says nothing yet, so that the key itself is compared.
func (l *lookup) entry(ctx context.Context, key string) (*sdk.Answer, error) {
	subject := l.prefix + contract.StateToken(key)
	e, err := readEntry(ctx, l.conn.nc, l.get+subject, subject)
	if err != nil {
		return nil, err
	}
	a := &sdk.Answer{Status: http.StatusNotFound}
	if len(e.data) > 0 && e.key == key {
		a.Status = http.StatusOK
		a.Format, a.ContentType, a.Data = e.format, e.contentType, e.data
	}
	return a, nil
}

// look a key up. An error is an *enrichError, for a message waits while the broker is away, or the context's.
func (e *enricher) look(ctx context.Context, key string) (*sdk.Answer, error) {
	limited, stop := context.WithTimeout(ctx, e.timeout)
	defer stop()
	begun, answers := time.Now(), e.answers.Load()
	a, err := e.table.entry(limited, key)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("the broker does not answer within %s, or does not let this connector read it yet", e.timeout)
		}
		e.outcomes.WithLabelValues("unavailable").Inc()
		return nil, e.away(sdk.Unavailable(contract.ReasonBrokerUnreachable, fmt.Errorf("%s: %w", e.name, err)), answers, false)
	}
	e.latency.Observe(time.Since(begun).Seconds())
	e.of.conn.worked()
	return a, nil
}
