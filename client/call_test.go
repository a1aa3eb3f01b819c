package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

var custom = labmesh.Spec{Kind: labmesh.Custom, Priority: 1, Config: json.RawMessage(`{"name":"true"}`)}

func TestRefusalsHaveTheirReason(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]labmesh.Reason{
		400: labmesh.Invalid, 401: labmesh.Denied, 403: labmesh.Denied, 404: labmesh.NotFound, 405: labmesh.Invalid,
		409: labmesh.Conflict, 413: labmesh.TooLarge, 500: labmesh.Internal,
	} {
		c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-API-Key") != "the-key" {
				t.Errorf("key %q", r.Header.Get("X-API-Key"))
			}
			reply(w, status, api.Error{Message: "said why", Field: "config.name"})
		}))
		_, err := c.Task(t.Context(), "t1")
		var e *labmesh.Error
		if !errors.As(err, &e) || e.Reason != want || e.Message != "said why" || e.Field != "config.name" {
			t.Errorf("%d became %#v, want reason %s", status, err, want)
		}
	}
}

func TestAnAnswerThatIsNoJSONIsShown(t *testing.T) {
	t.Parallel()
	c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<h1>proxy</h1>", 404) }))
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "<h1>proxy</h1>") {
		t.Errorf("error %v", err)
	}
	c = newClient(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "is a labmesh node at http://node.test?") {
		t.Errorf("error %v", err)
	}
}

func TestASubmitIsRepeatedUntilThereIsALeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var keys []string
		c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var spec labmesh.Spec
			if err := json.NewDecoder(r.Body).Decode(&spec); err != nil {
				t.Error(err)
			}
			if keys = append(keys, spec.IdempotencyKey); len(keys) < 3 {
				w.Header().Set("Retry-After", "2")
				refuse(w, 503, "no leader")
				return
			}
			reply(w, 200, api.SubmitReply{ID: "t1", Created: true})
		}))
		start := time.Now()
		got, err := c.Submit(t.Context(), custom)
		if err != nil || got.ID != "t1" {
			t.Fatalf("got %+v, %v", got, err)
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("waited %s, want twice the Retry-After", took)
		}
		if keys[0] == "" || keys[0] != keys[1] || keys[1] != keys[2] {
			t.Errorf("idempotency keys %q, want the same one each time", keys)
		}
	})
}

func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			refuse(w, 503, "no leader")
		}))
		start := time.Now()
		_, err := c.Submit(t.Context(), custom)
		if labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took < 9*time.Second || took > 10*time.Second {
			t.Errorf("gave up after %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		if _, err := c.Submit(ctx, custom); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want that of the context", err)
		}
	})
}

func TestALostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if tries++; tries == 1 {
				fmt.Fprint(w, `{"task_id":`)
				panic(http.ErrAbortHandler)
			}
			reply(w, 200, api.SubmitReply{ID: "t1"})
		}))
		if _, err := c.Submit(t.Context(), custom); err != nil || tries != 2 {
			t.Errorf("%d tries, error %v", tries, err)
		}
		tries = 0
		if _, err := c.Invite(t.Context(), api.InviteRequest{}); labmesh.ReasonOf(err) != labmesh.Unavailable || tries != 1 {
			t.Errorf("an invite was asked for %d times (error %v): there may be two of it now", tries, err)
		}
	})
}

func TestNobodyAtTheAddress(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	c, err := client.New(client.Config{URL: srv.URL, Source: "/x/api.json"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Status(t.Context())
	if labmesh.ReasonOf(err) != labmesh.Unavailable || !strings.Contains(err.Error(), "labmesh up") || !strings.Contains(err.Error(), "/x/api.json") {
		t.Errorf("error %v", err)
	}
}

func TestManyTasksGoInFewRequests(t *testing.T) {
	t.Parallel()
	var sizes []int
	keys := map[string]bool{}
	c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req api.BatchRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		sizes = append(sizes, len(req.Tasks))
		var out api.BatchReply
		for _, s := range req.Tasks {
			keys[s.IdempotencyKey] = true
			out.IDs = append(out.IDs, labmesh.TaskID(s.Name))
		}
		out.Created = len(out.IDs)
		reply(w, 200, out)
	}))
	specs := make([]labmesh.Spec, 2*api.BatchTasksMax+5)
	for i := range specs {
		specs[i] = custom
		specs[i].Name = fmt.Sprint(i)
	}
	got, err := c.SubmitBatch(t.Context(), specs)
	if err != nil || fmt.Sprint(sizes) != "[10000 10000 5]" || len(keys) != len(specs) || got.Created != len(specs) {
		t.Fatalf("sizes %v, %d keys, %d created, error %v", sizes, len(keys), got.Created, err)
	}
	for i, id := range got.IDs {
		if id != labmesh.TaskID(fmt.Sprint(i)) {
			t.Fatalf("id %d is %s: out of order", i, id)
		}
	}
}

func TestALargeBatchIsSplitByItsBytes(t *testing.T) {
	t.Parallel()
	var sizes []int
	c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || len(body) > api.BatchBytesMax {
			t.Errorf("a body of %d bytes, error %v", len(body), err)
		}
		sizes = append(sizes, bytes.Count(body, []byte(`"idempotency_key"`)))
		reply(w, 200, api.BatchReply{})
	}))
	big := custom
	big.Env = map[string]string{"X": strings.Repeat("x", 128<<10)}
	if _, err := c.SubmitBatch(t.Context(), slices.Repeat([]labmesh.Spec{big}, 400)); err != nil || len(sizes) != 2 || sizes[0]+sizes[1] != 400 {
		t.Errorf("sizes %v, error %v", sizes, err)
	}
}

func TestAllTasksGoesThroughThePages(t *testing.T) {
	t.Parallel()
	c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("status") != "failed" || q.Get("type") != "test" || q.Get("worker_id") != "w" {
			t.Errorf("query %s", r.URL.RawQuery)
		}
		next := map[string]string{"": "a", "a": "b", "b": ""}[q.Get("cursor")]
		reply(w, 200, api.TaskList{Tasks: []api.Task{{ID: labmesh.TaskID("t" + q.Get("cursor"))}}, NextCursor: next})
	}))
	var got []string
	for task, err := range c.AllTasks(t.Context(), client.TaskQuery{Status: "failed", Type: "test", Worker: "w"}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(task.ID))
	}
	if fmt.Sprint(got) != "[t ta tb]" {
		t.Errorf("got %v", got)
	}
}

func TestQueryKeepsTheDigits(t *testing.T) {
	t.Parallel()
	c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("format") == "parquet" {
			fmt.Fprint(w, "PAR1…PAR1")
			return
		}
		fmt.Fprint(w, `{"columns":["n"],"types":["BIGINT"],"rows":[[9007199254740993]],"truncated":false,"log_index":7}`)
	}))
	got, err := c.Query(t.Context(), api.QueryRequest{SQL: "SELECT 9007199254740993 AS n"})
	if err != nil || fmt.Sprint(got.Rows) != "[[9007199254740993]]" {
		t.Errorf("rows %v, error %v", got.Rows, err)
	}
	var b strings.Builder
	if err := c.QueryParquet(t.Context(), api.QueryRequest{SQL: "SELECT 1"}, &b); err != nil || b.String() != "PAR1…PAR1" {
		t.Errorf("parquet %q, error %v", b.String(), err)
	}
}
