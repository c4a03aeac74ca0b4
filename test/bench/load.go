package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/metip/metip/test/bench/record"
)

// caller is one keep-alive connection. It is written by hand because it shares the machine's cores with what it measures.
type caller struct {
	head   []byte
	conn   net.Conn
	reader *bufio.Reader
	buffer []byte
}

func dial(ctx context.Context, address, contentType string) (*caller, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: ", u.RequestURI(), u.Host, contentType)
	return &caller{head: []byte(head), conn: conn, reader: bufio.NewReader(conn)}, nil
}

// post a body and return the answer's status.
func (c *caller) post(body []byte) (int, error) {
	c.buffer = strconv.AppendInt(append(c.buffer[:0], c.head...), int64(len(body)), 10)
	c.buffer = append(append(c.buffer, "\r\n\r\n"...), body...)
	if err := c.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	if _, err := c.conn.Write(c.buffer); err != nil {
		return 0, err
	}
	r, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return r.StatusCode, errors.Join(err, r.Body.Close())
}

// callers of a load.
type callers []*caller

func dialAll(ctx context.Context, address, contentType string, n int) (callers, error) {
	var all callers
	for range n {
		c, err := dial(ctx, address, contentType)
		if err != nil {
			all.close()
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (c callers) close() {
	for _, x := range c {
		_ = x.conn.Close()
	}
}

// send one message of the run and note when; sent is when it should have been.
func (r *run) send(c *caller, index int, sent time.Duration) error {
	r.sent[index].Store(int64(sent))
	status, err := c.post(record.Body(r.base + index))
	if err != nil {
		return err
	}
	r.answered(status, index)
	return nil
}

// answered notes the answer to a request that held the messages.
func (r *run) answered(status int, indices ...int) {
	if status != http.StatusAccepted {
		r.refused.Add(1)
		return
	}
	now := int64(time.Since(r.began))
	for _, i := range indices {
		r.accepted[i].Store(now)
	}
	r.confirmed.Add(int64(len(indices)))
}

var errRoom = errors.New("the run has too little room for so many messages")

// closedLoop sends over every connection, each message as soon as the one before it was answered, for the duration.
func closedLoop(ctx context.Context, r *run, address string, connections int, duration time.Duration) error {
	all, err := dialAll(ctx, address, "application/json", connections)
	if err != nil {
		return err
	}
	defer all.close()
	r.began = time.Now()
	return all.each(func(c *caller) error {
		for time.Since(r.began) < duration && ctx.Err() == nil {
			i, ok := r.take()
			if !ok {
				return errRoom
			}
			if err := r.send(c, i, time.Since(r.began)); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// batchLoop is closedLoop with a batch of CloudEvents in each request.
func batchLoop(ctx context.Context, r *run, address, eventType string, connections, size int, duration time.Duration) error {
	all, err := dialAll(ctx, address, "application/cloudevents-batch+json", connections)
	if err != nil {
		return err
	}
	defer all.close()
	r.began = time.Now()
	return all.each(func(c *caller) error {
		var body []byte
		for time.Since(r.began) < duration && ctx.Err() == nil {
			sent := int64(time.Since(r.began))
			var indices []int
			body = append(body[:0], '[')
			for range size {
				i, ok := r.take()
				if !ok {
					return errRoom
				}
				if len(indices) > 0 {
					body = append(body, ',')
				}
				indices = append(indices, i)
				body = fmt.Appendf(body, `{"specversion":"1.0","id":"%d","source":"/bench","type":%q,"data":%s}`, r.base+i, eventType, record.Body(r.base+i))
				r.sent[i].Store(sent)
			}
			status, err := c.post(append(body, ']'))
			if err != nil {
				return err
			}
			r.answered(status, indices...)
		}
		return ctx.Err()
	})
}

// openLoop sends at a steady rate, whatever the answers: what waits for a free connection counts as latency.
func openLoop(ctx context.Context, r *run, address string, connections, rate int, duration time.Duration) error {
	all, err := dialAll(ctx, address, "application/json", connections)
	if err != nil {
		return err
	}
	defer all.close()
	type job struct {
		index int
		due   time.Duration
	}
	total := int(duration.Seconds() * float64(rate))
	jobs := make(chan job, total)
	r.began = time.Now()
	go func() {
		defer close(jobs)
		for n := range total {
			// A timer fires up to a millisecond late; that is the load's own error, hence the time is taken after it.
			time.Sleep(time.Until(r.began.Add(time.Duration(n) * time.Second / time.Duration(rate))))
			if i, ok := r.take(); ok && ctx.Err() == nil {
				jobs <- job{i, time.Since(r.began)}
			}
		}
	}()
	return all.each(func(c *caller) error {
		for j := range jobs {
			if err := r.send(c, j.index, j.due); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// each runs the function for every connection and waits for all.
func (c callers) each(do func(*caller) error) error {
	errs := make([]error, len(c))
	var group sync.WaitGroup
	for i, x := range c {
		group.Go(func() { errs[i] = do(x) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// drain waits until what was accepted has arrived.
func (r *run) drain(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for r.arrived.Load() < r.confirmed.Load() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("accepted %d, delivered %d: %w", r.confirmed.Load(), r.arrived.Load(), ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
