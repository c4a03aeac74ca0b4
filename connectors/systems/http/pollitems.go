package http

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/steps"
)

const (
	// maxPages of one round: a system that always has another one is wrong.
	maxPages = 10000
	// pollBatch of items that are published together, and the bytes of their bodies.
	pollBatch      = 256
	pollBatchBytes = 4 << 20
	// maxItemID, in bytes; the digest of a longer one takes its place.
	maxItemID = 256
)

// itemOptions are the JSON of the API's HTTPPollItems.
type itemOptions struct {
	List     string        `json:"list"`
	ID       string        `json:"id"`
	NextPage string        `json:"nextPage"`
	Cursor   cursorOptions `json:"cursor"`
}

// cursorOptions are the JSON of the API's HTTPPollCursor.
type cursorOptions struct {
	Item      string `json:"item"`
	Answer    string `json:"answer"`
	Parameter string `json:"parameter"`
	Start     string `json:"start"`
}

func (c *cursorOptions) kind() string {
	if c.Item != "" {
		return "item"
	}
	return "answer"
}

// items of an answer.
type items struct {
	list         *steps.Split
	id, position *steps.Value
	next         *steps.Value // nil: the header Link alone says so
	cursor       cursorOptions
}

func newItems(o itemOptions, target *url.URL) (*items, error) {
	step, err := steps.Compile(contract.Step{Split: &contract.Split{Items: o.List}})
	if err != nil {
		return nil, fmt.Errorf("items.list: %w", err)
	}
	i := &items{list: step.(*steps.Split), cursor: o.Cursor}
	if i.id, err = steps.CompileValue(o.ID); err != nil {
		return nil, fmt.Errorf("items.id: %w", err)
	}
	switch {
	case (o.Cursor.Item == "") == (o.Cursor.Answer == ""):
		return nil, errors.New("items.cursor: exactly one of item and answer is needed")
	case o.Cursor.Item != "" && o.Cursor.Parameter == "":
		return nil, errors.New("items.cursor: an item's cursor needs parameter")
	case o.Cursor.Parameter != "" && target.Query().Has(o.Cursor.Parameter):
		return nil, fmt.Errorf("items.cursor: the query of url has %s already", o.Cursor.Parameter)
	}
	if i.position, err = steps.CompileValue(o.Cursor.Item + o.Cursor.Answer); err != nil {
		return nil, fmt.Errorf("items.cursor: %w", err)
	}
	if o.NextPage != "" {
		if i.next, err = steps.CompileValue(o.NextPage); err != nil {
			return nil, fmt.Errorf("items.nextPage: %w", err)
		}
	}
	return i, nil
}

// address that is asked at the position.
func (p *poll) address() (*url.URL, error) {
	cursor := p.at.Cursor
	switch {
	case cursor == "":
		return p.url, nil
	case p.items.cursor.Parameter == "":
		return p.resolve(p.url, cursor)
	}
	u := *p.url
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += url.QueryEscape(p.items.cursor.Parameter) + "=" + url.QueryEscape(cursor)
	return &u, nil
}

// pages takes in the items of all pages that there are.
func (p *poll) pages(ctx context.Context) error {
	address, err := p.address()
	if err != nil {
		return err
	}
	p.last = ""
	for range maxPages {
		a, err := p.ask(ctx, address)
		if err != nil || a == nil {
			return err
		}
		next, err := p.page(ctx, a)
		if err != nil {
			return err
		}
		if next == nil {
			p.seen = a.validator
			return nil
		}
		if next.String() == address.String() {
			return p.systemErrorf("an answer names itself, %.200q, as the next page", next)
		}
		address = next
	}
	return p.systemErrorf("there is no end to the pages after %d", maxPages)
}

// page takes in the items of an answer. It returns where the next are; nil where there are none for now.
func (p *poll) page(ctx context.Context, a *pollAnswer) (*url.URL, error) {
	if len(a.body) == 0 {
		return nil, nil
	}
	whole := &sdk.Message{Data: a.body, Format: sdk.FormatJSON}
	if err := sdk.CheckFormat(sdk.FormatJSON, a.body); err != nil {
		return nil, p.systemErrorf("the answer is not JSON: %w", err)
	}
	next, err := p.nextPage(whole, a)
	if err != nil {
		return nil, err
	}
	parts, err := p.items.list.Parts(whole)
	if err != nil {
		return nil, p.systemErrorf("items.list: %w", err)
	}
	before := p.at.Cursor
	if p.items.cursor.Item != "" {
		err = p.ordered(ctx, whole, parts)
	} else {
		err = p.listed(ctx, whole, parts)
	}
	if err != nil || next != nil || p.at.Cursor == before {
		return next, err
	}
	p.last = ""
	return p.address() // there may be more by now
}

// nextPage that the answer names.
func (p *poll) nextPage(whole *sdk.Message, a *pollAnswer) (*url.URL, error) {
	if p.items.next == nil {
		return a.next, nil
	}
	text, err := evaluate(p.items.next, whole)
	switch {
	case err != nil:
		return nil, p.systemErrorf("items.nextPage: %w", err)
	case text == "":
		return nil, nil
	}
	return p.resolve(a.address, text)
}

// item of an answer.
type item struct {
	id, cursor string
	number     bool // the cursor is a number
	message    *sdk.Message
}

// item number i.
func (p *poll) item(whole *sdk.Message, parts *steps.Parts, i int) (*item, error) {
	part := parts.Part(whole, i)
	part.Headers = nil
	out := &item{message: part}
	var err error
	if out.id, err = evaluate(p.items.id, part); err != nil {
		return nil, p.systemErrorf("items.id, item %d: %w", i, err)
	}
	if out.id == "" {
		return nil, p.systemErrorf("items.id: item %d has none", i)
	}
	if len(out.id) > maxItemID {
		out.id = digest([]byte(out.id))
	}
	part.Subject, part.PartitionKey, part.Endpoint = out.id, out.id, p.url.Path
	if p.items.cursor.Item == "" {
		part.ID = out.id + "/" + digest(part.Data)
		return out, nil
	}
	v, err := p.items.position.Eval(part)
	if err == nil {
		out.cursor, err = scalar(v)
	}
	if err == nil && out.cursor == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, p.systemErrorf("items.cursor.item of %s: %w", out.id, err)
	}
	_, text := v.(string)
	out.number = !text
	part.ID = out.id + "/" + out.cursor
	if len(out.cursor) > maxItemID {
		part.ID = out.id + "/" + digest([]byte(out.cursor))
	}
	if at, err := time.Parse(time.RFC3339Nano, out.cursor); err == nil {
		part.Time = at
	}
	return out, nil
}

// ordered takes in items that are in the order of their cursors. Nothing of a page is taken in where that is seen not to be so, because what is behind
// the position is never asked for again.
func (p *poll) ordered(ctx context.Context, whole *sdk.Message, parts *steps.Parts) error {
	list, failure := p.ascending(whole, parts)
	if list == nil {
		return failure
	}
	at, batch := *p.at, &pollMessages{}
	for _, it := range list {
		mark := digest([]byte(it.message.ID))
		if before(it, at.Cursor) || it.cursor == at.Cursor && slices.Contains(at.Edge, mark) {
			continue // the system lists more than it was asked for
		}
		if it.cursor != at.Cursor {
			at.Cursor, at.Edge = it.cursor, nil
		}
		at.Edge = append(slices.Clip(at.Edge), mark)
		if batch.full(it.message) {
			if err := p.take(ctx, batch); err != nil {
				return err
			}
			batch = &pollMessages{}
		}
		batch.add(it.message, at)
	}
	return errors.Join(p.take(ctx, batch), failure)
}

// ascending are the items of a page up to the first that cannot be read, which is the error then.
func (p *poll) ascending(whole *sdk.Message, parts *steps.Parts) ([]*item, error) {
	list := make([]*item, 0, parts.Count())
	for i := range parts.Count() {
		it, err := p.item(whole, parts, i)
		if err != nil {
			return list, err
		}
		if p.last != "" && before(it, p.last) {
			return nil, p.systemErrorf("item %s, with cursor %s, comes after one with cursor %s: items must come in ascending order, so ask for that by a parameter of the url such as sort",
				it.id, it.cursor, p.last)
		}
		p.last = it.cursor
		list = append(list, it)
	}
	return list, nil
}

// before tells whether an item's cursor is before another, as far as that can be known: texts that are no times may be anything.
func before(it *item, cursor string) bool {
	if it.number {
		a, errA := strconv.ParseFloat(it.cursor, 64)
		b, errB := strconv.ParseFloat(cursor, 64)
		return errA == nil && errB == nil && a < b
	}
	at, err := time.Parse(time.RFC3339Nano, cursor)
	return err == nil && !it.message.Time.IsZero() && it.message.Time.Before(at)
}

// listed takes in the items of an answer that says itself where to go on. Where it does not, the same is asked again, and what is known is passed over.
func (p *poll) listed(ctx context.Context, whole *sdk.Message, parts *steps.Parts) error {
	cursor, err := evaluate(p.items.position, whole)
	if err != nil {
		return p.systemErrorf("items.cursor.answer: %w", err)
	}
	at, batch := *p.at, &pollMessages{}
	var marks []string
	for i := range parts.Count() {
		it, err := p.item(whole, parts, i)
		if err != nil {
			return errors.Join(p.take(ctx, batch), err)
		}
		mark := digest([]byte(it.message.ID))
		if slices.Contains(at.Edge, mark) {
			continue
		}
		marks = append(marks, mark)
		if batch.full(it.message) {
			if err := p.take(ctx, batch); err != nil {
				return err
			}
			batch = &pollMessages{}
		}
		batch.add(it.message, at)
	}
	if err := p.take(ctx, batch); err != nil {
		return err
	}
	if cursor != "" && cursor != at.Cursor {
		at.Cursor, at.Edge = cursor, nil
	} else {
		at.Edge = slices.Concat(at.Edge, marks) // they will be listed again
	}
	return p.publish(ctx, at)
}

// pollMessages are published together, and where each leads to.
type pollMessages struct {
	messages []*sdk.Message
	at       []pollPosition
	bytes    int
}

func (b *pollMessages) full(m *sdk.Message) bool {
	return len(b.messages) == pollBatch || len(b.messages) > 0 && b.bytes+len(m.Data) > pollBatchBytes
}

func (b *pollMessages) add(m *sdk.Message, at pollPosition) {
	b.messages, b.at, b.bytes = append(b.messages, m), append(b.at, at), b.bytes+len(m.Data)
}

// take gives messages to the bus. Nothing may be left out, so that one that it cannot take makes those after it wait.
func (p *poll) take(ctx context.Context, b *pollMessages) error {
	if len(b.messages) == 0 {
		return ctx.Err()
	}
	err := p.publish(ctx, b.at[len(b.at)-1], b.messages...)
	for i := 0; errors.Is(err, sdk.ErrInvalid) && i < len(b.messages); i++ {
		if err := p.publish(ctx, b.at[i], b.messages[i]); errors.Is(err, sdk.ErrInvalid) {
			return p.systemErrorf("the bus can take no item from %s on: %w", b.messages[i].Subject, err)
		} else if err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	return ctx.Err()
}

// evaluate an expression to a text; empty for null, and where a field is missing.
func evaluate(v *steps.Value, m *sdk.Message) (string, error) {
	x, err := v.Eval(m)
	switch {
	case err != nil && strings.Contains(err.Error(), "no such key"):
		return "", nil
	case err != nil:
		return "", err
	}
	return scalar(x)
}

// scalar as text.
func scalar(x any) (string, error) {
	switch x := x.(type) {
	case nil:
		return "", nil
	case string:
		return x, nil
	case json.Number:
		return x.String(), nil
	case int:
		return strconv.Itoa(x), nil
	case int64:
		return strconv.FormatInt(x, 10), nil
	case uint64:
		return strconv.FormatUint(x, 10), nil
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64), nil
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano), nil
	default:
		return "", fmt.Errorf("it is no text, number or time, but a %T", x)
	}
}
