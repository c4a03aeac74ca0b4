package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
)

const (
	subjectClaimsUpdate = "$SYS.REQ.CLAIMS.UPDATE"
	subjectClaimsLookup = "$SYS.REQ.ACCOUNT.%s.CLAIMS.LOOKUP"
	subjectServerPing   = "$SYS.REQ.SERVER.PING"

	// serverInterval at which new servers, and restarted ones, are looked for.
	serverInterval = 3 * time.Second
	// pingWait for the servers' answers to a ping.
	pingWait = time.Second
	// requestAttempt is how long one attempt of a request waits.
	requestAttempt = 2 * time.Second
)

// ErrCannotRevoke is wrapped where an external Broker's Secret lacks what revoking needs.
var ErrCannotRevoke = errors.New("users of this broker cannot be revoked: its credentials lack sys.creds or operator.seed")

// claims keeps the claims of accounts on the servers. A server that was down, or starts with an older configuration, accepts a
// revoked user until it is told.
type claims struct {
	params Params
	sys    *nats.Conn

	mu sync.Mutex
	// accounts by public key, encoded.
	accounts map[string]string
}

func newClaims(p Params, sys *nats.Conn) *claims {
	c := &claims{params: p, sys: sys, accounts: map[string]string{}}
	for _, encoded := range p.Accounts {
		if a, err := jwt.DecodeAccountClaims(encoded); err == nil {
			c.accounts[a.Subject] = encoded
		}
	}
	return c
}

// push tells the servers of all claims that the operator keeps.
func (c *claims) push(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, encoded := range c.accounts {
		if err := c.update(ctx, encoded); err != nil {
			return err
		}
	}
	return nil
}

// revoke a user: first the claims are kept, then the servers are told.
func (c *claims) revoke(ctx context.Context, publicKey string) error {
	if !c.params.CanRevoke() {
		return ErrCannotRevoke
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	current, err := c.current(ctx)
	if err != nil {
		return err
	}
	if !isRevoked(current, publicKey) {
		if current, err = revoke(current, publicKey, time.Now(), MaxUserLifetime, c.params.Operator); err != nil {
			return fmt.Errorf("signing the claims of account EDGE: %w", err)
		}
		if c.params.StoreEdgeClaims != nil {
			if err := c.params.StoreEdgeClaims(ctx, current); err != nil {
				return fmt.Errorf("storing the claims of account EDGE: %w", err)
			}
			c.accounts[c.params.Edge.PublicKey] = current
		}
	}
	return c.update(ctx, current)
}

// current claims of account EDGE: those that the operator keeps, or else those of the servers.
func (c *claims) current(ctx context.Context) (string, error) {
	if encoded, ok := c.accounts[c.params.Edge.PublicKey]; ok {
		return encoded, nil
	}
	reply, err := c.request(ctx, fmt.Sprintf(subjectClaimsLookup, c.params.Edge.PublicKey), nil)
	if err != nil {
		return "", fmt.Errorf("reading the claims of account EDGE: %w", err)
	}
	if len(reply.Data) == 0 {
		return "", fmt.Errorf("the servers do not know account %s (key %s of the credentials)", c.params.Edge.PublicKey, CredentialsEdge)
	}
	return string(reply.Data), nil
}

// update returns when one server has stored the claims; the servers pass them on among themselves.
func (c *claims) update(ctx context.Context, encoded string) error {
	reply, err := c.request(ctx, subjectClaimsUpdate, []byte(encoded))
	if err != nil {
		return err
	}
	var answer struct {
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	if answer.Error != nil {
		return fmt.Errorf("a server refused the claims: %s", answer.Error.Description)
	}
	return nil
}

// request asks again while nobody answers: a question that went to a server as it stopped is lost. What is asked may be asked twice.
func (c *claims) request(ctx context.Context, subject string, body []byte) (*nats.Msg, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, requestAttempt)
		reply, err := c.sys.RequestWithContext(attempt, subject, body)
		cancel()
		if err == nil || !unanswered(err) || ctx.Err() != nil {
			return reply, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// watchServers tells every server that has started of the claims, until ctx ends.
func (c *claims) watchServers(ctx context.Context) {
	ticker := time.NewTicker(serverInterval)
	defer ticker.Stop()
	known := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if !c.sys.IsConnected() {
			continue
		}
		answers, err := pingServers[json.RawMessage](ctx, c.sys, subjectServerPing, nil, c.params.Client.Replicas)
		if err != nil {
			continue
		}
		fresh := false
		for _, a := range answers {
			fresh = fresh || !known[a.Server.ID]
		}
		if fresh {
			pushing, cancel := context.WithTimeout(ctx, callTimeout)
			err = c.push(pushing)
			cancel()
		}
		for _, a := range answers {
			known[a.Server.ID] = known[a.Server.ID] || err == nil
		}
	}
}

// answer of one server to a system request.
type answer[T any] struct {
	Server struct {
		ID      string `json:"id"`
		Name    string `json:"name"`
		Version string `json:"ver"`
	} `json:"server"`
	Data T `json:"data"`
}

// pingServers gathers the answers of all servers: as many as are expected, or those that answer in time.
func pingServers[T any](ctx context.Context, sys *nats.Conn, subject string, body []byte, expected int) ([]answer[T], error) {
	ctx, cancel := context.WithTimeout(ctx, pingWait)
	defer cancel()
	inbox := sys.NewRespInbox()
	sub, err := sys.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := sys.PublishRequest(subject, inbox, body); err != nil {
		return nil, err
	}
	var all []answer[T]
	for len(all) < expected {
		m, err := sub.NextMsgWithContext(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, err
		}
		var a answer[T]
		if err := json.Unmarshal(m.Data, &a); err != nil {
			return nil, fmt.Errorf("reading a server's answer: %w", err)
		}
		all = append(all, a)
	}
	return all, nil
}
