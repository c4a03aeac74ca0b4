package folder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"time"

	"github.com/metip/metip/connectors/contract"
	"github.com/metip/metip/connectors/sdk"
)

const (
	// MaxBatch of messages that are published together, and the bytes of their bodies; one may exceed them.
	MaxBatch      = 512
	maxBatchBytes = 4 << 20
	// settleTimeout is how long what is being published has when the pod ends.
	settleTimeout = 15 * time.Second
	publishWait   = 20 * time.Second
)

// message of a record.
func (i *Intake) message(f File, offset int64, body []byte) *sdk.Message {
	m := &sdk.Message{
		ID: f.id() + "-" + strconv.FormatInt(offset, 10), Subject: f.Name, Time: f.Modified.UTC(), Data: body,
		Headers: map[string]string{"filename": path.Base(f.Name), "fileoffset": strconv.FormatInt(offset, 10)},
	}
	switch i.Format {
	case sdk.FormatXML:
		m.ContentType = "application/xml"
	case sdk.FormatText:
		m.ContentType = "text/plain; charset=utf-8"
	case sdk.FormatBinary:
		m.ContentType = "application/octet-stream"
	default:
		m.ContentType = "application/json"
	}
	return m
}

// publish until the broker has the messages, or refuses one for good (ErrInvalid). What is under way when the pod ends may still settle.
func (i *Intake) publish(ctx context.Context, f func(context.Context) error) error {
	pause := minPause
	for {
		err := settle(ctx, f)
		if err == nil || errors.Is(err, sdk.ErrInvalid) || errors.Is(err, sdk.ErrBody) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rest(ctx, nil, pause) // at the end of the context it is tried once more
		pause = min(2*pause, maxPause)
	}
}

// settle calls f with a context that outlives ctx by settleTimeout.
func settle(ctx context.Context, f func(context.Context) error) error {
	inner, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishWait)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(settleTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-inner.Done():
		}
	})
	defer stop()
	return f(inner)
}

// batch publishes messages, and says how many of them, from the first, the broker has. refused is why it will never have the next one.
func (i *Intake) batch(ctx context.Context, bus sdk.Publisher, messages []*sdk.Message) (stored int, refused, err error) {
	if len(messages) == 0 {
		return 0, nil, nil
	}
	err = i.publish(ctx, func(ctx context.Context) error { return bus.Publish(ctx, messages...) })
	switch {
	case err == nil:
		return len(messages), nil, nil
	case !errors.Is(err, sdk.ErrInvalid):
		return 0, nil, err
	}
	for n, m := range messages {
		err := i.publish(ctx, func(ctx context.Context) error { return bus.Publish(ctx, m) })
		if errors.Is(err, sdk.ErrInvalid) {
			return n, err, nil
		}
		if err != nil {
			return n, nil, err
		}
	}
	return len(messages), nil, nil
}

// records of a file, from where it was left.
func (i *Intake) records(ctx context.Context, bus sdk.Publisher, f File) error {
	from := int64(0)
	if i.note.ID == f.id() {
		from = i.note.Offset
	}
	s, in, shape, err := i.open(f, from)
	if in != nil {
		defer func() { _ = in.Close() }()
	}
	switch badly := (*badError)(nil); {
	case errors.Is(err, fs.ErrNotExist):
		return i.forget() // somebody took it away
	case errors.Is(err, io.EOF):
		return i.finish(f)
	case errors.As(err, &badly):
		return i.fail(f, err)
	case err != nil:
		return err
	}
	for {
		messages, next, ending := i.fill(f, s, shape)
		stored, refused, err := i.batch(ctx, bus, messages)
		if err != nil {
			if stored > 0 {
				offset, _ := strconv.ParseInt(messages[stored].Headers["fileoffset"], 10, 64)
				err = errors.Join(err, i.remember(f, offset, true))
			}
			return err
		}
		var badly *badError
		switch {
		case refused != nil:
			return i.fail(f, fmt.Errorf("the record that begins at byte %s: %w", messages[stored].Headers["fileoffset"], refused))
		case errors.Is(ending, io.EOF):
			return i.finish(f)
		case errors.As(ending, &badly):
			return i.fail(f, ending)
		}
		over := ctx.Err() != nil || ending != nil || errors.Is(bus.Ready(), sdk.ErrSuspended)
		if err := i.remember(f, next, over); err != nil {
			return err
		}
		if over {
			return errors.Join(ending, ctx.Err())
		}
	}
}

// splitting finds the records of a file, one after the other.
type splitting interface {
	// next record, and where it began; a badError, or io.EOF after the last. Its bytes are good until the next call.
	next() ([]byte, int64, error)
	// offset of what comes next.
	offset() int64
}

// open a file at a record, and learn the header of a table.
func (i *Intake) open(f File, from int64) (splitting, io.ReadCloser, *shaper, error) {
	shape := &shaper{Options: &i.Options, row: i.Table}
	shape.row.NoHeader = true
	named := i.Kind == CSV && !i.Table.NoHeader
	at := from
	if named || i.Kind == XML { // what is around an element begins with the file
		at = 0
	}
	in, err := i.fs.Open(f.Name, at)
	if err != nil {
		return nil, nil, nil, err
	}
	if i.Kind == XML {
		return newXMLSplitter(in, from, i.Elements.Element), in, shape, nil
	}
	s := newSplitter(in, at, i.Kind == CSV)
	if !named {
		return s, in, shape, nil
	}
	raw, _, err := s.next()
	if err != nil {
		return nil, in, nil, err
	}
	if err := shape.header(raw); err != nil {
		return nil, in, nil, bad(fmt.Errorf("the header: %w", err))
	}
	if from <= s.at {
		return s, in, shape, nil
	}
	_ = in.Close()
	if in, err = i.fs.Open(f.Name, from); err != nil {
		return nil, nil, nil, err
	}
	return newSplitter(in, from, true), in, shape, nil
}

// fill a batch. ending is why it is not full: io.EOF, a badError, or that the file cannot be read.
func (i *Intake) fill(f File, s splitting, shape *shaper) (messages []*sdk.Message, next int64, ending error) {
	size := 0
	for len(messages) < MaxBatch && size < maxBatchBytes {
		raw, at, err := s.next()
		if err != nil {
			return messages, at, err
		}
		var body []byte
		if x, ok := s.(*xmlSplitter); ok {
			body, err = shape.record(raw, x.charset)
		} else {
			body, err = shape.body(raw)
		}
		if err != nil {
			return messages, at, bad(fmt.Errorf("the record that begins at byte %d: %w", at, err))
		}
		if body == nil {
			continue
		}
		messages = append(messages, i.message(f, at, body))
		size += len(body)
	}
	return messages, s.offset(), nil
}

// wholes takes in files that are a message each: as many as make a batch. It returns with how many it is done.
func (i *Intake) wholes(ctx context.Context, bus sdk.Publisher, files []File) (int, error) {
	var messages []*sdk.Message
	var taken []File
	n, size := 0, int64(0)
	for n < len(files) && len(taken) < MaxBatch && size < maxBatchBytes {
		f := files[n]
		if f.Size > contract.MaxMessageSize && f.Size <= i.MaxFile || n > 0 && size+f.Size > 2*maxBatchBytes {
			break // the next time
		}
		n++
		body, err := i.whole(f)
		switch badly := (*badError)(nil); {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errChanged):
			continue
		case errors.As(err, &badly):
			if err := i.fail(f, err); err != nil {
				return n, err
			}
			continue
		case err != nil:
			return n, err
		}
		messages, taken, size = append(messages, i.message(f, 0, body)), append(taken, f), size+int64(len(body))
	}
	for len(messages) > 0 {
		stored, refused, err := i.batch(ctx, bus, messages)
		for _, f := range taken[:stored] {
			if failure := i.finish(f); failure != nil {
				return n, failure
			}
		}
		if err != nil {
			return n, err
		}
		if refused != nil {
			if err := i.fail(taken[stored], refused); err != nil {
				return n, err
			}
			stored++
		}
		messages, taken = messages[stored:], taken[stored:]
	}
	return n, nil
}

// errChanged is of a file that is not what it was when it was found.
var errChanged = errors.New("the file has changed")

func (i *Intake) whole(f File) ([]byte, error) {
	if f.Size > i.MaxFile {
		return nil, bad(fmt.Errorf("the file has %d bytes, more than %d", f.Size, i.MaxFile))
	}
	in, err := i.fs.Open(f.Name, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	raw := bytes.NewBuffer(make([]byte, 0, f.Size+bytes.MinRead))
	if _, err := raw.ReadFrom(io.LimitReader(in, f.Size+1)); err != nil {
		return nil, err
	}
	now, ok, err := i.stat(f.Name)
	if err != nil {
		return nil, err
	}
	if !ok || !now.same(f) || int64(raw.Len()) != f.Size {
		return nil, errChanged
	}
	shape := &shaper{Options: &i.Options}
	body, err := shape.decode(raw.Bytes())
	if err == nil {
		err = sdk.CheckFormat(i.Format, body)
	}
	if err != nil {
		return nil, bad(err)
	}
	return body, nil
}

// large takes in a file that the bus does not carry, as a claim check.
func (i *Intake) large(ctx context.Context, bus sdk.Publisher, f File) error {
	to, ok := bus.(sdk.LargePublisher)
	if !ok {
		return errors.New("the engine takes no bodies over the bus's limit")
	}
	until, cancel := context.WithTimeout(ctx, contract.ClaimTimeout)
	defer cancel()
	in, err := i.fs.Open(f.Name, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	err = to.PublishLarge(until, i.message(f, 0, nil), &exactly{in, f.Size})
	switch {
	case errors.Is(err, sdk.ErrInvalid):
		return i.fail(f, err)
	case errors.Is(err, errChanged):
		i.seen = nil
		return nil
	case err != nil && !errors.Is(err, sdk.ErrBody):
		// The broker's being away is not the volume's: it is tried again, without a word.
		rest(ctx, nil, maxPause)
		return nil
	case err != nil:
		return err
	}
	return i.finish(f)
}

// exactly reads what has so many bytes.
type exactly struct {
	io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if e.left -= int64(n); e.left < 0 || errors.Is(err, io.EOF) && e.left > 0 {
		return n, errChanged
	}
	return n, err
}
