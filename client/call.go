package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"labmesh"
	"labmesh/api"
)

// Bounds on the wait before a request is repeated.
const (
	retryWaitMin = 50 * time.Millisecond
	retryWaitMax = 5 * time.Second
)

// call is one request to the API and where its answer goes.
type call struct {
	method string
	path   string
	query  url.Values
	in     any    // sent as JSON when it is not nil
	body   []byte // sent as it is when in is nil
	media  string // of body, when it is not JSON
	out    any    // the answer is decoded into it when it is not nil
	// once says that the request must not be repeated when its answer was lost.
	once bool
	// timeout bounds one try; 0 means requestTimeout.
	timeout time.Duration
}

// do makes the call, and repeats it while the node says that it may work later
// or the connection is lost, for as long as the client's patience lasts.
func (c *Client) do(ctx context.Context, l call) error {
	if l.in != nil {
		var err error
		if l.body, err = json.Marshal(l.in); err != nil {
			return fmt.Errorf("encode the body of %s %s: %w", l.method, l.path, err)
		}
	}
	deadline := time.Now().Add(c.cfg.Patience)
	for n := 0; ; n++ {
		wait, err := c.try(ctx, l)
		if err == nil || wait < 0 {
			return err
		}
		if wait == 0 {
			wait = retryWaitMin << min(n, 6)
		}
		wait = min(max(wait, retryWaitMin), retryWaitMax)
		if time.Now().Add(wait).After(deadline) {
			return err
		}
		if !sleep(ctx, wait) {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// try makes the call once. A wait below 0 says not to repeat it, 0 says to
// repeat it after a wait of the caller's choice.
func (c *Client) try(ctx context.Context, l call) (wait time.Duration, err error) {
	timeout := l.timeout
	if timeout == 0 {
		timeout = requestTimeout
	}
	try, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := c.request(try, l.method, l.path, l.query, l.body)
	if err != nil {
		return -1, err
	}
	if l.media != "" {
		req.Header.Set("Content-Type", l.media)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return repeatLost(ctx, err, l.once), c.unreached(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, responseBytesMax+1))
	switch {
	case err != nil:
		return repeatLost(ctx, err, l.once), c.unreached(ctx, err)
	case len(data) > responseBytesMax:
		return -1, labmesh.Refuse(labmesh.TooLarge, "the answer to %s %s is over %d MiB: ask for less", l.method, l.path, responseBytesMax>>20)
	case l.out == nil:
		return -1, nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // a BIGINT of the ledger keeps its digits
	if err := dec.Decode(l.out); err != nil {
		return -1, fmt.Errorf("decode the answer to %s %s (is a labmesh node at %s?): %w", l.method, l.path, c.URL(), err)
	}
	return -1, nil
}

// repeatLost says whether to repeat a request after its connection failed.
func repeatLost(ctx context.Context, err error, once bool) time.Duration {
	var dial *net.OpError
	switch {
	case ctx.Err() != nil, once:
		return -1
	case errors.As(err, &dial) && dial.Op == "dial":
		return -1 // nobody is there: say so at once
	case errors.Is(err, context.DeadlineExceeded):
		return -1
	}
	return 0
}

// unreached is the refusal for a node that did not answer.
func (c *Client) unreached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // without the address, which is named anyway
	}
	where := c.URL()
	if c.cfg.Source != "" {
		where += " (from " + c.cfg.Source + ")"
	}
	return labmesh.Refuse(labmesh.Unavailable, "no labmesh node answers at %s: %v; start one with `labmesh up`, or name one with --addr", where, err)
}

// refusal reads the error that a node answered with, and how long to wait
// before asking again: below 0 for never, 0 for as long as the caller likes.
func refusal(resp *http.Response) (time.Duration, error) {
	e := refusalOf(resp)
	if e.Reason != labmesh.Unavailable && e.Reason != labmesh.Exhausted {
		return -1, e
	}
	if s, err := strconv.ParseFloat(resp.Header.Get("Retry-After"), 64); err == nil && s > 0 {
		return time.Duration(min(s, retryWaitMax.Seconds()) * float64(time.Second)), e
	}
	return 0, e
}

func refusalOf(resp *http.Response) *labmesh.Error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, errorBytesMax)) // what came of it is all there is to show
	var body api.Error
	e := &labmesh.Error{Reason: ReasonOf(resp.StatusCode)}
	if json.Unmarshal(data, &body) == nil && body.Message != "" {
		e.Message, e.Field = body.Error(), body.Field
		if body.RequestID != "" {
			e.Message += " (request " + body.RequestID + " in the node's log)"
		}
	} else {
		e.Message = "the node answered " + resp.Status
		if text := bytes.TrimSpace(data); len(text) > 0 {
			e.Message += fmt.Sprintf(": %.200s", text)
		}
	}
	return e
}

// ReasonOf is the reason that an HTTP status stands for, "" for success.
func ReasonOf(status int) labmesh.Reason {
	switch {
	case status < 400:
		return ""
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return labmesh.Denied
	case status == http.StatusNotFound:
		return labmesh.NotFound
	case status == http.StatusConflict:
		return labmesh.Conflict
	case status == http.StatusRequestEntityTooLarge:
		return labmesh.TooLarge
	case status == http.StatusTooManyRequests:
		return labmesh.Exhausted
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return labmesh.Unavailable
	case status < 500:
		return labmesh.Invalid
	}
	return labmesh.Internal
}

func bodyOf(data []byte) io.Reader {
	if data == nil {
		return nil
	}
	return bytes.NewReader(data)
}

// sleep waits for d, and reports whether it did: false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
