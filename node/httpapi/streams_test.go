package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labmesh"
	"labmesh/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patient bounds what a test waits for; nothing should take nearly as long.
const patient = 10 * time.Second

// serve runs the API of f as the product does.
func serve(t *testing.T, f *fake, change ...func(*Config)) (url string, a *API, logs *syncBuffer) {
	t.Helper()
	a, logs = newAPI(t, f, change...)
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(a, a.log)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, a, logs
}

// openURL asks for a stream. It ends with the test.
func openURL(t *testing.T, url string, headers ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-API-Key", adminKey)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// lines reads n lines that are not empty.
func lines(t *testing.T, b *bufio.Reader, n int) (out []string) {
	t.Helper()
	for len(out) < n {
		line, err := b.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", out, err)
		}
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			out = append(out, line)
		}
	}
	return out
}

func event(index uint64, n int) labmesh.Event {
	return labmesh.Event{Index: index, N: n, At: noon, Type: labmesh.TaskSubmitted, Task: &labmesh.Task{ID: "t1", Phase: labmesh.Pending}, Actor: "me"}
}

func TestEventsFollowOneAnother(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.events = []labmesh.Event{event(5, 0), event(5, 1), event(6, 0)}
	url, _, _ := serve(t, f)
	resp := openURL(t, url+"/api/events", "Last-Event-ID", "5-0")
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || ct != "text/event-stream" {
		t.Fatalf("%d %s", resp.StatusCode, ct)
	}
	b := bufio.NewReader(resp.Body)
	got := lines(t, b, 7)
	for i, want := range []string{"retry: 1000", "id: 5-1", "event: task_submitted", "data: {", "id: 6-0", "event: task_submitted", "data: {"} {
		if !strings.HasPrefix(got[i], want) {
			t.Errorf("line %d is %q, not %q", i, got[i], want)
		}
	}
	var e api.Event
	if err := json.Unmarshal([]byte(strings.TrimPrefix(got[3], "data: ")), &e); err != nil {
		t.Fatal(err)
	}
	if e.ID != "5-1" || e.Index != 5 || e.N != 1 || e.Task.ID != "t1" || !e.At.Equal(noon.Truncate(time.Microsecond)) || e.Actor != "me" {
		t.Errorf("event %+v", e)
	}
	f.more <- event(7, 0)
	if got := lines(t, b, 1)[0]; got != "id: 7-0" {
		t.Errorf("then came %q", got)
	}
}

func TestEventsFromNowOnBeginAtOnce(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.events = []labmesh.Event{event(5, 0)}
	url, _, _ := serve(t, f, func(c *Config) { c.Limits.Heartbeat = 20 * time.Millisecond })
	b := bufio.NewReader(openURL(t, url+"/api/events").Body)
	if got := lines(t, b, 3); got[0] != "retry: 1000" || got[1] != ": heartbeat" || got[2] != ": heartbeat" {
		t.Errorf("an idle stream holds %q", got)
	}
}

func TestEventsThatAreForgottenAreRefused(t *testing.T) {
	t.Parallel()
	url, _, _ := serve(t, newFake())
	for id, want := range map[string]int{"2-0": 404, "x": 400, "5": 400, "5-x": 400, "-1-0": 400} {
		resp := openURL(t, url+"/api/events", "Last-Event-ID", id)
		if body, _ := io.ReadAll(resp.Body); resp.StatusCode != want {
			t.Errorf("%s: %d %s", id, resp.StatusCode, body)
		}
	}
	if resp := openURL(t, url+"/api/events?last_event_id=2-0"); resp.StatusCode != 404 {
		t.Errorf("by the query parameter: %d", resp.StatusCode)
	}
}

// TestASlowReaderIsDropped opens a stream, reads nothing and sees that the mesh
// is not held up.
func TestASlowReaderIsDropped(t *testing.T) {
	t.Parallel()
	f := newFake()
	url, _, logs := serve(t, f, func(c *Config) { c.Limits.SlowReader = 50 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /api/events HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\n\r\n", adminKey)
	big := event(1, 0)
	big.Detail = strings.Repeat("x", 64<<10)
	stuck := time.NewTimer(patient)
	defer stuck.Stop()
	for sent := 0; !strings.Contains(logs.String(), "event stream cut"); sent++ {
		select {
		case f.more <- big:
		case <-time.After(time.Millisecond): // nobody takes events any more, or not just now
		case <-stuck.C:
			t.Fatalf("after %d events the slow reader is still there", sent)
		}
	}
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tasks = []labmesh.Task{{ID: "t1"}}
	url, _, _ := serve(t, f, func(c *Config) { c.Limits.Streams = 1 })
	first := openURL(t, url+"/api/events")
	lines(t, bufio.NewReader(first.Body), 1)
	for _, path := range []string{"/api/events", "/api/tasks/t1/logs?follow=1"} {
		if resp := openURL(t, url+path); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("one too many at %s: %d", path, resp.StatusCode)
		}
	}
}

func TestAShutdownEndsStreams(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tasks = []labmesh.Task{{ID: "t1"}}
	f.output = func(ctx context.Context, _ LogRequest) (io.ReadCloser, error) { return blocked(), nil }
	a, _ := newAPI(t, f)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(a, a.log)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	url := "http://" + l.Addr().String()
	events := openURL(t, url+"/api/events")
	logs := openURL(t, url+"/api/tasks/t1/logs?follow=1")
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatalf("streams hold up the shutdown: %v", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if _, err := io.ReadAll(events.Body); err != nil {
		t.Errorf("an event stream that ends: %v", err)
	}
	if _, err := io.ReadAll(logs.Body); err == nil {
		t.Error("a log that broke off looks whole")
	}
	a.EndStreams() // safe twice
	if w := do(a, "GET", "/api/events", ""); w.Code != 503 {
		t.Errorf("a stream after the end: %d", w.Code)
	}
}

// blockedReader gives nothing until it is closed.
type blockedReader struct {
	*io.PipeReader
	w *io.PipeWriter
}

func blocked() blockedReader {
	r, w := io.Pipe()
	return blockedReader{r, w}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tasks = []labmesh.Task{{ID: "t1"}}
	a, _ := newAPI(t, f)
	for query, want := range map[string]string{"": "stdout0", "?stream=stderr&attempt=2": "stderr2", "?stream=stdout&follow=0": "stdout0", "?follow=true": "stdout0"} {
		w := do(a, "GET", "/api/tasks/t1/logs"+query, "")
		if w.Code != 200 || w.Body.String() != want || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v %q", query, w.Code, w.Header(), w.Body)
		}
	}
	for query, field := range map[string]string{
		"stream=both": "stream", "attempt=-1": "attempt", "attempt=x": "attempt", "follow=maybe": "follow", "follow=": "follow",
	} {
		if w := do(a, "GET", "/api/tasks/t1/logs?"+query, ""); w.Code != 400 || object(t, w)["field"] != field {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	f.output = func(context.Context, LogRequest) (io.ReadCloser, error) {
		return nil, labmesh.Refuse(labmesh.Unavailable, "the node that has the log is not there")
	}
	if w := do(a, "GET", "/api/tasks/t1/logs", ""); w.Code != 503 {
		t.Errorf("a log that is away: %d %s", w.Code, w.Body)
	}
}

func TestLogsComeInFrames(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tasks = []labmesh.Task{{ID: "t1"}}
	asked := make(chan LogRequest, 1)
	out := blocked()
	f.output = func(_ context.Context, r LogRequest) (io.ReadCloser, error) { asked <- r; return out, nil }
	url, a, _ := serve(t, f, func(c *Config) { c.Limits.Heartbeat = 20 * time.Millisecond })
	resp := openURL(t, url+"/api/tasks/t1/logs?follow=1&frames=1&after=2-1234&stream=stderr")
	if got := resp.Header.Get("Content-Type"); got != api.LogFramesType {
		t.Errorf("it comes as %s", got)
	}
	if got, want := <-asked, (LogRequest{Task: "t1", Stream: "stderr", Follow: true, After: api.LogPosition{Attempt: 2, Offset: 1234}}); got != want {
		t.Errorf("asked for %+v, want %+v", got, want)
	}
	frames := api.NewLogFrames(resp.Body)
	next := func() api.LogFrame {
		t.Helper()
		frame, err := frames.Next()
		if err != nil {
			t.Fatal(err)
		}
		frame.Data = slices.Clone(frame.Data)
		return frame
	}
	for range 5 { // alive, with nothing to say
		if frame := next(); frame.Kind != api.LogStill {
			t.Errorf("got %+v", frame)
		}
	}
	if _, err := io.WriteString(out.w, "a\xffb"); err != nil {
		t.Fatal(err)
	}
	out.w.Close()
	var kinds []api.LogKind
	var text string
	for frame := next(); ; frame = next() {
		text += string(frame.Data)
		if frame.Kind != api.LogStill {
			kinds = append(kinds, frame.Kind)
		}
		if frame.Kind == api.LogEnd {
			break
		}
	}
	if _, err := frames.Next(); !errors.Is(err, io.EOF) || text != "a\xffb" || !slices.Equal(kinds, []api.LogKind{api.LogData, api.LogEnd}) {
		t.Errorf("%q in %v, then %v", text, kinds, err)
	}
	for query, field := range map[string]string{"after=2": "after", "after=0-1": "after", "frames=maybe": "frames"} {
		if w := do(a, "GET", "/api/tasks/t1/logs?"+query, ""); w.Code != 400 || object(t, w)["field"] != field {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
}

func TestAFollowedLogComesAsItIsWritten(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tasks = []labmesh.Task{{ID: "t1"}}
	out := blocked()
	f.output = func(context.Context, LogRequest) (io.ReadCloser, error) { return out, nil }
	url, _, _ := serve(t, f)
	resp := openURL(t, url+"/api/tasks/t1/logs?follow=1") // answered before there is output
	b := bufio.NewReader(resp.Body)
	for _, line := range []string{"one", "two"} {
		if _, err := io.WriteString(out.w, line+"\n"); err != nil {
			t.Fatal(err)
		}
		if got := lines(t, b, 1)[0]; got != line {
			t.Errorf("got %q", got)
		}
	}
	out.w.Close()
	if rest, err := io.ReadAll(b); err != nil || len(rest) > 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
}

func TestALogThatBreaksOffDoesNotLookWhole(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tasks = []labmesh.Task{{ID: "t1"}}
	out := blocked()
	f.output = func(context.Context, LogRequest) (io.ReadCloser, error) { return out, nil }
	url, _, logs := serve(t, f)
	resp := openURL(t, url+"/api/tasks/t1/logs?follow=1")
	if _, err := io.WriteString(out.w, "one\n"); err != nil {
		t.Fatal(err)
	}
	lines(t, bufio.NewReader(resp.Body), 1)
	out.w.CloseWithError(errors.New("worker is gone"))
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("it looks whole")
	}
	if !strings.Contains(logs.String(), "worker is gone") {
		t.Errorf("logged %s", logs)
	}
}

func TestAFollowerWhoLeavesClosesTheLog(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tasks = []labmesh.Task{{ID: "t1"}}
	out := blocked()
	f.output = func(context.Context, LogRequest) (io.ReadCloser, error) { return out, nil }
	url, _, _ := serve(t, f)
	openURL(t, url+"/api/tasks/t1/logs?follow=1").Body.Close()
	left := make(chan error, 1)
	go func() {
		var err error
		for err == nil { // the pipe takes writes until its reader is closed
			_, err = io.WriteString(out.w, "x")
		}
		left <- err
	}()
	select {
	case err := <-left:
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	case <-time.After(patient):
		out.w.Close()
		t.Error("the log is still read")
	}
}

// TestTheServersOwnLimitsDoNotCutStreams gives the server limits that a stream
// must outlive.
func TestTheServersOwnLimitsDoNotCutStreams(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake(), func(c *Config) { c.Limits.Heartbeat = 20 * time.Millisecond })
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(a, a.log)
	s.Config.ReadTimeout, s.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	s.Start()
	t.Cleanup(s.Close)
	b := bufio.NewReader(openURL(t, s.URL+"/api/events").Body)
	lines(t, b, 10) // 9 heartbeats take 180 ms
}

// TestASlowHeaderIsCutOff sends half a header to a server that waits briefly.
func TestASlowHeaderIsCutOff(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake())
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(a, a.log)
	if c := s.Config; c.ReadHeaderTimeout <= 0 || c.ReadTimeout <= 0 || c.WriteTimeout <= 0 || c.IdleTimeout <= 0 || c.MaxHeaderBytes <= 0 {
		t.Errorf("a limit is not set: %+v", c)
	}
	s.Config.ReadHeaderTimeout = 50 * time.Millisecond
	s.Start()
	t.Cleanup(s.Close)
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(patient))
	fmt.Fprint(conn, "GET /status HTTP/1.1\r\nHost:")
	if _, err := io.ReadAll(conn); err != nil { // the server hangs up long before our own deadline
		t.Errorf("the server waits for the rest of a header: %v", err)
	}
}

// TestASlowBodyIsCutOff sends half a body to an API that waits briefly.
func TestASlowBodyIsCutOff(t *testing.T) {
	t.Parallel()
	f := newFake()
	url, _, _ := serve(t, f, func(c *Config) { c.Limits.Request = 50 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(patient))
	fmt.Fprintf(conn, "POST /api/tasks HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Length: 100\r\n\r\n{", adminKey)
	if _, err := io.ReadAll(conn); err != nil { // the server hangs up long before our own deadline
		t.Errorf("the server waits for the rest of a body: %v", err)
	}
}

func TestTestCasesAreEvents(t *testing.T) {
	t.Parallel()
	few := event(5, 1)
	few.Type = labmesh.TestsRecorded
	few.Tests = &labmesh.Tests{Task: "t1", Attempt: 2, Worker: "w1", From: 7, ID: 5 << 20, Cases: []labmesh.TestCase{
		{Suite: "s", Framework: "pytest", File: "a.py", Name: "test_x", Params: "1", Verdict: labmesh.TestFailed, Seconds: 0.5, Try: 2, Message: "assert\nno", Log: "stdout:0-9", Quarantined: true},
		{Framework: "pytest", File: "a.py", Name: "test_y", Verdict: labmesh.TestPassed}}}
	wordy, named := few, few
	wordy.N, named.N = 2, 3
	many := labmesh.Tests{Task: "t1", Attempt: 2, Worker: "w1", From: 9}
	huge := many
	for range labmesh.CasesMax {
		many.Cases = append(many.Cases, labmesh.TestCase{Name: "n", Verdict: labmesh.TestFailed, Message: strings.Repeat("\x01é", labmesh.CaseMessageBytesMax/3)})
		huge.Cases = append(huge.Cases, labmesh.TestCase{Name: strings.Repeat("\x01", labmesh.CaseNameBytesMax), Verdict: labmesh.TestFailed})
	}
	wordy.Tests, named.Tests = &many, &huge
	f := newFake()
	f.events = []labmesh.Event{event(5, 0), few, wordy, named}
	url, _, _ := serve(t, f)
	b := bufio.NewReaderSize(openURL(t, url+"/api/events", "Last-Event-ID", "5-0").Body, 4<<20)
	lines(t, b, 1)
	var got [3]api.Event
	for i := range got {
		data := strings.TrimPrefix(lines(t, b, 3)[2], "data: ")
		if len(data) > eventBytesMax {
			t.Errorf("an event of %d bytes", len(data))
		}
		if err := json.Unmarshal([]byte(data), &got[i]); err != nil {
			t.Fatal(err)
		}
	}
	if e := got[0].Tests; got[0].ID != "5-1" || e.Task != "t1" || e.Attempt != 2 || e.Worker != "w1" || e.From != 7 || len(e.Cases) != 2 || e.Cases[0] != few.Tests.Cases[0] {
		t.Errorf("few cases: %+v", e)
	}
	if e := got[1].Tests; len(e.Cases)+e.Omitted != labmesh.CasesMax || e.Omitted > labmesh.CasesMax/2 || !strings.HasSuffix(e.Cases[0].Message, " …") {
		t.Errorf("long messages: %d cases, %d omitted, %.20q", len(e.Cases), e.Omitted, e.Cases[0].Message)
	}
	if e := got[2].Tests; len(e.Cases)+e.Omitted != labmesh.CasesMax || e.Omitted == 0 || len(e.Cases) == 0 {
		t.Errorf("long names: %d cases, %d omitted", len(e.Cases), e.Omitted)
	}
	if many.Cases[0].Message != strings.Repeat("\x01é", labmesh.CaseMessageBytesMax/3) {
		t.Error("the event itself was changed")
	}
}

func TestRowsOfBenchmarksAreEvents(t *testing.T) {
	t.Parallel()
	row := func(env string) labmesh.BenchRow {
		return labmesh.BenchRow{Run: "r1", Repeat: 1, Work: labmesh.BenchWork{Model: "mlp", Batch: 2}, Status: labmesh.BenchOK, N: 5, Wall: &labmesh.BenchTiming{P50: 1.5}, Env: json.RawMessage(env)}
	}
	few, wide, long := event(5, 1), event(5, 2), event(5, 3)
	few.Type, wide.Type, long.Type = labmesh.BenchRecorded, labmesh.BenchRecorded, labmesh.BenchRecorded
	few.Bench = &labmesh.Bench{Task: "t1", Attempt: 2, Worker: "w1", From: 7, ID: 5 << 20, Rows: []labmesh.BenchRow{row(`{"os":"linux"}`), row("")}}
	wide.Bench, long.Bench = &labmesh.Bench{Task: "t1"}, &labmesh.Bench{Task: "t1"}
	for range labmesh.BenchRowsMax {
		wide.Bench.Rows = append(wide.Bench.Rows, row(`"`+strings.Repeat("e", labmesh.BenchEnvBytesMax)+`"`))
		r := row(`{}`)
		r.Reason = strings.Repeat("x", 64<<10)
		long.Bench.Rows = append(long.Bench.Rows, r)
	}
	f := newFake()
	f.events = []labmesh.Event{event(5, 0), few, wide, long}
	url, _, _ := serve(t, f)
	b := bufio.NewReaderSize(openURL(t, url+"/api/events", "Last-Event-ID", "5-0").Body, 4<<20)
	lines(t, b, 1)
	var got [3]api.Event
	for i := range got {
		data := strings.TrimPrefix(lines(t, b, 3)[2], "data: ")
		if len(data) > eventBytesMax {
			t.Errorf("an event of %d bytes", len(data))
		}
		if err := json.Unmarshal([]byte(data), &got[i]); err != nil {
			t.Fatal(err)
		}
	}
	if e := got[0].Bench; e.Task != "t1" || e.Attempt != 2 || e.Worker != "w1" || e.From != 7 || len(e.Rows) != 2 || string(e.Rows[0].Env) != `{"os":"linux"}` || e.Rows[1].Wall.P50 != 1.5 || e.EnvOmitted {
		t.Errorf("few rows: %+v", e)
	}
	if e := got[1].Bench; len(e.Rows) != labmesh.BenchRowsMax || e.Omitted != 0 || !e.EnvOmitted || e.Rows[0].Env != nil {
		t.Errorf("large fingerprints: %d rows, %d omitted", len(e.Rows), e.Omitted)
	}
	if e := got[2].Bench; len(e.Rows)+e.Omitted != labmesh.BenchRowsMax || e.Omitted == 0 || len(e.Rows) == 0 {
		t.Errorf("long reasons: %d rows, %d omitted", len(e.Rows), e.Omitted)
	}
	if wide.Bench.Rows[0].Env == nil {
		t.Error("the event itself was changed")
	}
}
