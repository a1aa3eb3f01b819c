package client_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"labmesh/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inMemory carries requests straight to a handler, so that clients can live in
// a bubble of virtual time.
type inMemory struct{ handler http.Handler }

func (t inMemory) RoundTrip(req *http.Request) (*http.Response, error) {
	r, w := io.Pipe()
	rw := &pipeWriter{header: http.Header{}, body: w, began: make(chan struct{}), status: http.StatusOK}
	if req.Body == nil {
		req.Body = http.NoBody
	}
	stop := context.AfterFunc(req.Context(), func() { w.CloseWithError(req.Context().Err()) })
	go func() {
		defer stop()
		defer func() {
			err := io.EOF
			if recover() == http.ErrAbortHandler {
				err = io.ErrUnexpectedEOF
			}
			rw.WriteHeader(rw.status)
			w.CloseWithError(err)
		}()
		t.handler.ServeHTTP(rw, req)
	}()
	select {
	case <-rw.began:
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	return &http.Response{StatusCode: rw.status, Status: http.StatusText(rw.status), Header: rw.header, Body: r, Request: req}, nil
}

type pipeWriter struct {
	header http.Header
	status int
	body   *io.PipeWriter
	began  chan struct{}
	done   bool
}

func (w *pipeWriter) Header() http.Header { return w.header }
func (w *pipeWriter) Flush()              {}
func (w *pipeWriter) WriteHeader(status int) {
	if !w.done {
		w.done, w.status = true, status
		close(w.began)
	}
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(w.status)
	return w.body.Write(p)
}

func newClient(t *testing.T, h http.Handler) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{URL: "http://node.test", Key: "the-key", Transport: inMemory{h}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, message string) {
	reply(w, status, map[string]string{"error": message})
}
