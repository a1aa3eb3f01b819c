package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
)

// Keys that the fake knows, by their role.
const (
	adminKey     = "key-admin"
	operatorKey  = "key-operator"
	submitterKey = "key-submitter" // of the project vision
	observerKey  = "key-observer"
	workerKey    = "key-worker"
	tokenKey     = "token-worker" // for the worker w1
)

// callers are who bears them.
var callers = map[string]Caller{
	adminKey: {Name: adminKey, Role: labmesh.RoleAdmin}, operatorKey: {Name: operatorKey, Role: labmesh.RoleOperator},
	submitterKey: {Name: submitterKey, Role: labmesh.RoleSubmitter, Project: "vision"}, observerKey: {Name: observerKey, Role: labmesh.RoleObserver},
	workerKey: {Name: workerKey, Role: labmesh.RoleWorker}, tokenKey: {Name: tokenKey, Role: labmesh.RoleWorker, Worker: "w1", Token: true},
}

// fake is a mesh of one, in memory.
type fake struct {
	mu     sync.Mutex
	tasks  []labmesh.Task
	byKey  map[string]labmesh.TaskID
	events []labmesh.Event
	more   chan labmesh.Event // events yet to come
	down   error              // what everything answers, if set
	refuse map[labmesh.TaskID]*labmesh.Error
	output func(ctx context.Context, r LogRequest) (io.ReadCloser, error)
	query  func(ctx context.Context, q Query) (QueryResult, error)
	submit func(specs []labmesh.Spec)
	file   func(w io.Writer) error
	asked  Query
	reg    labmesh.Worker
	inv    InviteRequest
	reason string
	chunks map[string][]byte // by hash
	bundle []byte            // the manifest of the last bundle
	tree   map[string]string // what the newest attempt of every task left
	secret map[string]labmesh.Secret
	bench  []labmesh.Bench
	keys   []labmesh.Key
	late   bool // tasks end between a look at them and their cancel
}

func newFake() *fake {
	return &fake{byKey: map[string]labmesh.TaskID{}, more: make(chan labmesh.Event), refuse: map[labmesh.TaskID]*labmesh.Error{}}
}

var noon = time.Date(2026, 5, 6, 12, 0, 0, 123456789, time.FixedZone("east", 3600))

func (f *fake) VerifySigned(_ Caller, header, method, uri string, body [sha256.Size]byte) error {
	if header != fmt.Sprintf("%s %s %x", method, uri, body[:4]) {
		return labmesh.Refuse(labmesh.Denied, "the signature is wrong")
	}
	return nil
}

func (f *fake) Authenticate(key string) (Caller, error) {
	c, ok := callers[key]
	switch {
	case key == "key-unknowable":
		return Caller{}, labmesh.Refuse(labmesh.Unavailable, "no replica to ask")
	case key == "key-revoked":
		return Caller{}, labmesh.Refuse(labmesh.Denied, "the key was revoked")
	case !ok:
		return Caller{}, labmesh.Refuse(labmesh.Denied, "")
	}
	return c, nil
}

func (f *fake) CreateKey(_ context.Context, by Caller, r KeyRequest) (string, labmesh.Key, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := labmesh.Key{ID: fmt.Sprint("k", len(f.keys)+1), Role: r.Role, Name: r.Name, Project: r.Project, By: by.Who(), Created: noon, RequireSigned: r.RequireSigned}
	if r.TTL > 0 {
		k.Expires = noon.Add(r.TTL)
	}
	f.keys = append(f.keys, k)
	return "lmk_" + k.ID + "_secret", k, f.down
}

func (f *fake) ListKeys(context.Context) ([]labmesh.Key, error) { return f.keys, f.down }

func (f *fake) RevokeKey(_ context.Context, id, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.keys {
		if f.keys[i].ID == id {
			f.keys[i].Revoked = noon
			return f.down
		}
	}
	return labmesh.Refuse(labmesh.NotFound, "no key %s", id)
}

func (f *fake) MintToken(_ context.Context, by Caller, worker labmesh.WorkerID) (Token, error) {
	role := by.Role
	if worker != "" {
		role = labmesh.RoleWorker
	}
	return Token{Text: "a.b.c", Role: role, Worker: worker, Expires: noon}, f.down
}

func (f *fake) ListInvites(context.Context) ([]labmesh.Invite, error) {
	return []labmesh.Invite{{ID: "i1", Key: []byte("proof"), Role: labmesh.RoleNode, Uses: 1, Expires: noon, By: "ada"}}, f.down
}

func (f *fake) DropInvite(_ context.Context, id, _ string) error {
	if id != "i1" {
		return labmesh.Refuse(labmesh.NotFound, "no invite %s", id)
	}
	return f.down
}

func (f *fake) Submit(_ context.Context, by Caller, specs []labmesh.Spec) ([]labmesh.Answer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return nil, f.down
	}
	if f.submit != nil {
		f.submit(specs)
	}
	out := make([]labmesh.Answer, len(specs))
	for i, s := range specs {
		if r := f.refuse[s.TaskID]; r != nil {
			out[i].Refused = r
			continue
		}
		if id, ok := f.byKey[s.IdempotencyKey]; ok && s.IdempotencyKey != "" {
			out[i] = labmesh.Answer{Task: id, Existed: true}
			continue
		}
		t := labmesh.Task{ID: s.TaskID, Seq: uint64(len(f.tasks) + 1), Spec: s, By: by.Who(), Project: by.Project, Phase: labmesh.Pending, Created: noon}
		if t.ID == "" {
			t.ID = labmesh.TaskID(fmt.Sprintf("t%d", t.Seq))
		}
		if s.IdempotencyKey != "" {
			f.byKey[s.IdempotencyKey] = t.ID
		}
		f.tasks = append(f.tasks, t)
		out[i].Task = t.ID
	}
	return out, nil
}

func (f *fake) Cancel(_ context.Context, id labmesh.TaskID, _, reason string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return f.down
	}
	f.reason = reason
	for i := range f.tasks {
		t := &f.tasks[i]
		if t.ID != id {
			continue
		}
		if f.late {
			t.Phase = labmesh.Completed
			return labmesh.Refuse(labmesh.Conflict, "cancel %s: it is completed", id)
		}
		t.Phase, _ = t.Phase.Next(labmesh.Cancel)
		return nil
	}
	return labmesh.Refuse(labmesh.NotFound, "cancel %s: no such task", id)
}

func (f *fake) Task(_ context.Context, id labmesh.TaskID) (labmesh.Task, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.tasks {
		if t.ID == id {
			return t, nil
		}
	}
	return labmesh.Task{}, fmt.Errorf("look up: %w", labmesh.Refuse(labmesh.NotFound, "no task %s", id))
}

func (f *fake) ListTasks(_ context.Context, flt TaskFilter) (out []labmesh.Task, next uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.tasks {
		switch {
		case t.Seq <= flt.After, flt.Phase != "" && t.Phase != flt.Phase, flt.Kind != "" && t.Spec.Kind != flt.Kind,
			flt.Worker != "" && t.Worker != flt.Worker, flt.Project != "" && t.Project != flt.Project:
			continue
		}
		if len(out) == flt.Limit {
			return out, out[len(out)-1].Seq, f.down
		}
		out = append(out, t)
	}
	return out, 0, f.down
}

func (f *fake) Why(ctx context.Context, id labmesh.TaskID) (Why, error) {
	if _, err := f.Task(ctx, id); err != nil {
		return Why{}, err
	}
	return Why{Task: id, Status: labmesh.Pending, Summary: "No worker fits.", Workers: []WhyWorker{{Worker: "w1"}}}, nil
}

func (f *fake) Benchmarks(_ context.Context, flt BenchFilter) (out []labmesh.Bench, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := flt.Limit
	for _, b := range f.bench {
		if skip := int(min(max(flt.After-b.ID+1, 0), int64(len(b.Rows)))); b.Task == flt.Task && left > 0 {
			b.ID, b.From, b.Rows = b.ID+int64(skip), b.From+skip, b.Rows[skip:]
			b.Rows = b.Rows[:min(left, len(b.Rows))]
			left -= len(b.Rows)
			out = append(out, b)
		}
	}
	return out, f.down
}

func (f *fake) Logs(ctx context.Context, r LogRequest, send func(api.LogFrame) error) error {
	if _, err := f.Task(ctx, r.Task); err != nil {
		return err
	}
	out := io.NopCloser(strings.NewReader(r.Stream + fmt.Sprint(r.Attempt)))
	if f.output != nil {
		var err error
		if out, err = f.output(ctx, r); err != nil {
			return err
		}
	}
	closeOut := sync.OnceValue(out.Close)
	defer closeOut() //nolint:errcheck // it was only read
	defer context.AfterFunc(ctx, func() { _ = closeOut() })()
	at := api.LogPosition{Attempt: max(r.Attempt, 1)}
	if err := send(api.LogFrame{Kind: api.LogStill, At: at}); err != nil {
		return err
	}
	buf := make([]byte, 1000)
	for {
		n, err := out.Read(buf)
		if n > 0 {
			frame := api.LogFrame{Kind: api.LogData, At: at, Data: buf[:n]}
			if err := send(frame); err != nil {
				return err
			}
			at = frame.After()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (f *fake) Peers(context.Context) Peers {
	return Peers{Addrs: []string{"/ip4/127.0.0.1/tcp/4080"}, Peers: []*Peer{{Node: "n1", Self: true, Reached: true}, {Node: "n2", Reached: true, RTT: time.Millisecond, Ahead: -time.Second}, {Node: "n3", Error: "gone"}}}
}

func (f *fake) Status(context.Context) Status {
	return Status{
		Node: "n1", Leader: "n1", Mesh: "m", Role: "leader", Term: 3, Voters: []labmesh.NodeID{"n1"}, Quorum: 1, Applied: 9, Ledger: 8,
		Uptime: 90 * time.Second, Version: "v1", Workers: WorkerCounts{Total: 2, Active: 1, Idle: 1, Offline: 1}, Tasks: map[labmesh.Phase]int{labmesh.Pending: 4}, TasksTotal: 4,
	}
}

func (f *fake) Ready() error { return f.down }

func (f *fake) ListWorkers(context.Context) ([]Worker, error) {
	w := Worker{Worker: labmesh.Worker{ID: "w1", Hostname: "h1", Slots: 2, Status: labmesh.WorkerActive}, Busy: true, SlotsUsed: 2, Heartbeat: noon}
	w.Capabilities.Hardware = []string{"cpu", "cuda"}
	w.Capabilities.CPU.Threads = 8
	w.Capabilities.GPU = &labmesh.GPU{Count: 1, Name: "A100"}
	off := Worker{Worker: labmesh.Worker{ID: "w2", Hostname: "h2", Status: labmesh.WorkerOffline}}
	return []Worker{w, off}, f.down
}

func (f *fake) Worker(ctx context.Context, id labmesh.WorkerID) (Worker, []labmesh.Task, error) {
	all, _ := f.ListWorkers(ctx)
	for _, w := range all {
		if w.ID == id {
			return w, f.tasks, f.down
		}
	}
	return Worker{}, nil, labmesh.Refuse(labmesh.NotFound, "no worker %s", id)
}

func (f *fake) Register(_ context.Context, w labmesh.Worker) (labmesh.WorkerID, error) {
	f.reg = w
	if w.ID == "" {
		w.ID = "w-new"
	}
	return w.ID, f.down
}

func (f *fake) Backup(context.Context) (func(io.Writer) error, error) {
	if f.down != nil {
		return nil, f.down
	}
	return func(w io.Writer) error { _, err := io.WriteString(w, "backup"); return err }, nil
}

func (f *fake) HoldWorker(ctx context.Context, id labmesh.WorkerID, status labmesh.WorkerStatus, reason, _ string) error {
	if _, _, err := f.Worker(ctx, id); err != nil {
		return err
	}
	f.reg = labmesh.Worker{ID: id, Hold: status, HoldReason: reason}
	return f.down
}

func (f *fake) Ban(ctx context.Context, name, _ string) (labmesh.NodeID, error) {
	if _, _, err := f.Worker(ctx, labmesh.WorkerID(name)); err != nil {
		return "", err
	}
	return "n-" + labmesh.NodeID(name), f.down
}

func (f *fake) Invite(_ context.Context, r InviteRequest) (string, error) {
	f.inv = r
	return "labmesh1invite", f.down
}

func (f *fake) Events(ctx context.Context, after EventID, send func(labmesh.Event) error) error {
	if after.Index > 0 && after.Index < 5 {
		return labmesh.Refuse(labmesh.NotFound, "events before 5 are forgotten")
	}
	for _, e := range f.events {
		if after == (EventID{}) || e.Index < after.Index || e.Index == after.Index && e.N <= after.N {
			continue
		}
		if err := send(e); err != nil {
			return err
		}
	}
	for {
		select {
		case e, ok := <-f.more:
			if !ok {
				return nil
			}
			if err := send(e); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *fake) Query(ctx context.Context, q Query) (QueryResult, error) {
	f.asked = q
	if f.query != nil {
		return f.query(ctx, q)
	}
	return QueryResult{Columns: []string{"n"}, Types: []string{"INTEGER"}, Rows: [][]any{{1}}, Index: 7}, f.down
}

func (f *fake) QueryParquet(_ context.Context, q Query, w io.Writer) error {
	f.asked = q
	if f.file != nil {
		return f.file(w)
	}
	_, err := io.WriteString(w, "PAR1")
	return err
}

// newAPI makes an API on f that logs into the returned buffer.
func newAPI(t testing.TB, f *fake, change ...func(*Config)) (*API, *syncBuffer) {
	t.Helper()
	logs := &syncBuffer{}
	c := Config{Service: f, Logger: slog.New(slog.NewTextHandler(logs, nil)), Version: "v1"}
	for _, ch := range change {
		ch(&c)
	}
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return a, logs
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// do sends one request as the admin.
func do(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("X-API-Key", adminKey)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// object is the body of a reply as an object.
func object(t testing.TB, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
		t.Fatalf("the body is no object: %v: %q", err, w.Body)
	}
	return m
}

func (f *fake) PutSecret(_ context.Context, s labmesh.Secret) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.secret == nil {
		f.secret = map[string]labmesh.Secret{}
	}
	s.Put = noon
	f.secret[s.Name] = s
	return f.down
}

func (f *fake) DropSecret(_ context.Context, name, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.secret[name]; !ok {
		return labmesh.Refuse(labmesh.NotFound, "no secret %s", name)
	}
	delete(f.secret, name)
	return f.down
}

func (f *fake) Secrets(context.Context) (list []labmesh.Secret, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.secret {
		list = append(list, s)
	}
	return list, f.down
}

func (f *fake) RotateSeal(context.Context, string) (string, error) { return "5ea1", nil }

func (f *fake) AuditLog(context.Context, AuditFilter) ([]labmesh.AuditRecord, error) { return nil, nil }
