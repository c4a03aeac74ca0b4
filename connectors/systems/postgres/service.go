package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

const (
	defaultMaxRows = 1000
	// maxServiceConns of one pod: a call has one while it lasts.
	maxServiceConns = 16
	rollbackTimeout = 2 * time.Second
)

// The answers of a service.
const (
	answerRows = "Rows"
	answerRow  = "Row"
)

// serviceOptions are the JSON of the API's PostgresService.
type serviceOptions struct {
	Connection connection `json:"connection"`
	Query      string     `json:"query"`
	Parameters []string   `json:"parameters"`
	Answer     string     `json:"answer"`
	MaxRows    int        `json:"maxRows"`
}

// service runs a query with what a request says.
type service struct {
	*access
	pool       *pgxpool.Pool
	version    atomic.Uint64 // of the Secrets that the connections were made with
	query      string
	parameters []*steps.Value
	single     bool
	maxRows    int
}

// NewService makes a service of the JSON of the API's PostgresService. It connects when it is first used.
func NewService(rt sdk.Runtime, raw json.RawMessage) (sdk.Service, error) {
	var o serviceOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	server, err := newServer(rt, o.Connection)
	if err != nil {
		return nil, err
	}
	s := &service{access: server, single: o.Answer == answerRow, maxRows: cmp.Or(o.MaxRows, defaultMaxRows)}
	switch {
	case strings.TrimSpace(o.Query) == "":
		return nil, errors.New("query is missing")
	case o.Answer != "" && o.Answer != answerRow && o.Answer != answerRows:
		return nil, fmt.Errorf("answer %q is neither %s nor %s", o.Answer, answerRows, answerRow)
	case s.maxRows < 0:
		return nil, errors.New("maxRows must be at least 1")
	case s.single:
		s.maxRows = 1
	}
	for i, expression := range o.Parameters {
		value, err := steps.CompileValue(expression)
		if err != nil {
			return nil, fmt.Errorf("parameters[%d]: %w", i, err)
		}
		s.parameters = append(s.parameters, value)
	}
	// A line end, for the query may end in a comment; one row more than may be, to know that there are more.
	s.query = "SELECT count(*)::text, coalesce('[' || string_agg(row_to_json(q)::text, ',') || ']', '[]') FROM (SELECT * FROM (" + o.Query + "\n) q LIMIT " + strconv.Itoa(s.maxRows+1) + ") q"
	config, err := s.poolConfig()
	if err != nil {
		return nil, err
	}
	config.MaxConns = maxServiceConns
	if s.pool, err = pgxpool.NewWithConfig(context.Background(), config); err != nil { //nolint:forbidigo // the service's own life: Close ends it
		return nil, fmt.Errorf("connection: %w", err)
	}
	s.version.Store(rt.Secrets.Version())
	return s, nil
}

// Close the connections, once they are no longer used.
func (s *service) Close() error {
	s.pool.Close()
	return nil
}

// acquire a connection that was made with what the Secrets hold now.
func (s *service) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	if version := s.rt.Secrets.Version(); s.version.Swap(version) != version {
		s.pool.Reset()
	}
	conn, err := s.pool.Acquire(ctx)
	if err == nil {
		return conn, nil
	}
	if ctx.Err() != nil && s.pool.Stat().TotalConns() > 0 {
		return nil, ctx.Err() // others have them all
	}
	return nil, s.unavailable(err)
}

// Check has the server read the query, without running it.
func (s *service) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := s.acquire(ctx)
	if err == nil {
		defer conn.Release()
		var read *pgconn.StatementDescription
		if read, err = conn.Conn().PgConn().Prepare(ctx, "", s.query, nil); err == nil && len(read.ParamOIDs) != len(s.parameters) {
			return s.systemErrorf("the query has %d parameters, and parameters are %d", len(read.ParamOIDs), len(s.parameters))
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return s.unavailable(errors.New("no answer in time"))
	}
	return s.unavailable(err)
}

// Call implements sdk.Service.
func (s *service) Call(ctx context.Context, r *sdk.Request) (*sdk.Answer, error) {
	if err := r.Check(); err != nil {
		return nil, &sdk.CallError{Status: http.StatusBadRequest, Err: err}
	}
	values, err := s.values(r)
	if err != nil {
		return nil, &sdk.CallError{Status: http.StatusBadRequest, Err: err}
	}
	count, rows, err := s.run(ctx, values)
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	switch {
	case s.single && count == 0:
		return nil, sdk.CallErrorf(http.StatusNotFound, "the query has no row")
	case count > s.maxRows:
		return nil, sdk.CallErrorf(http.StatusBadGateway, "the query has more rows than the %d that an answer may have", s.maxRows)
	case len(rows) > contract.MaxMessageSize:
		return nil, sdk.CallErrorf(http.StatusBadGateway, "the answer is larger than %d bytes, which is the most that the bus carries", contract.MaxMessageSize)
	}
	if r.Reserve != nil {
		if err := r.Reserve(ctx, len(rows)); err != nil {
			return nil, err
		}
	}
	if s.single {
		var list []json.RawMessage
		if err := json.Unmarshal(rows, &list); err != nil || len(list) != 1 {
			return nil, fmt.Errorf("%s: the server's row is no JSON: %w", s.endpoint, err)
		}
		rows = list[0]
	}
	a := &sdk.Answer{Status: http.StatusOK}
	a.ContentType, a.Format, a.Data = "application/json", sdk.FormatJSON, rows
	return a, nil
}

// values of the parameters, as the server reads them; nil is NULL.
func (s *service) values(r *sdk.Request) ([][]byte, error) {
	shown := *r
	shown.Headers = make(map[string]string, len(r.Headers)+8)
	for name, value := range r.Headers {
		shown.Headers[name] = value
	}
	shown.Expose()
	values := make([][]byte, len(s.parameters))
	for i, p := range s.parameters {
		v, err := p.Eval(&shown.Message)
		if err != nil {
			return nil, fmt.Errorf("parameter %d: %w", i+1, err)
		}
		value, err := encode(v, &column{name: "text", category: 'S'})
		if err != nil {
			return nil, fmt.Errorf("parameter %d: %w", i+1, err)
		}
		if !value.null {
			values[i] = []byte(value.s)
		}
	}
	return values, nil
}

// run the query in a transaction that changes nothing.
func (s *service) run(ctx context.Context, values [][]byte) (count int, rows []byte, err error) {
	conn, err := s.acquire(ctx)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Release()
	pg := conn.Conn().PgConn()
	batch := &pgconn.Batch{}
	batch.ExecParams("BEGIN READ ONLY", nil, nil, nil, nil)
	batch.ExecParams(s.query, values, nil, nil, nil)
	batch.ExecParams("COMMIT", nil, nil, nil, nil)
	results, err := pg.ExecBatch(ctx, batch).ReadAll()
	if err != nil {
		if pg.TxStatus() != 'I' && !pg.IsClosed() { // else the pool would throw the connection away
			ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
			defer cancel()
			_, _ = pg.Exec(ending, "ROLLBACK").ReadAll()
		}
		return 0, nil, err
	}
	if len(results) != 3 || len(results[1].Rows) != 1 {
		return 0, nil, fmt.Errorf("%s: the server's answer has %d parts", s.endpoint, len(results))
	}
	row := results[1].Rows[0]
	count, err = strconv.Atoi(string(row[0]))
	return count, row[1], err
}

// failure of a call.
func (s *service) failure(ctx context.Context, err error) error {
	var unavailable *sdk.UnavailableError
	var pg *pgconn.PgError
	isPG := errors.As(err, &pg)
	switch {
	case errors.As(err, &unavailable):
		return unavailable
	case ctx.Err() != nil && (!isPG || pg.Code == "57014"):
		return ctx.Err()
	case !isPG:
		return s.unavailable(err)
	case pg.Code == "25006":
		return s.systemErrorf("the query changes something, and a service only reads: %s", describe(err))
	}
	switch v, _ := judge(err); v {
	case data:
		return sdk.CallErrorf(http.StatusBadRequest, "the database refuses the request: %s", describe(err))
	case down:
		return s.unavailable(err)
	default:
		return fmt.Errorf("%s: %s", s.endpoint, describe(err))
	}
}
