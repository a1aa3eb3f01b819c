package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"labmesh"
	"labmesh/exec"
	"labmesh/light"
)

// How a worker keeps in touch.
const (
	beatEvery = 10 * time.Second
	pingEvery = 20 * time.Second
	dialWait  = 5 * time.Second
	replyWait = 10 * time.Second // for an answer to the first messages
	writeWait = 5 * time.Second
	againMin  = 100 * time.Millisecond // between two tries; doubled each time
	againMax  = 3 * time.Second
	lastWait  = 2 * time.Second // for the last results to be taken, when the worker stops
)

// Config says how a worker attaches and what it runs with. URLs, Key, Worker, Dir and Runners must be set.
type Config struct {
	URLs         []string // of nodes; the next one is tried when one cannot be had
	Key          string   // API key
	Worker       labmesh.WorkerID
	Hostname     string
	Capabilities labmesh.Capabilities
	Dir          string // for attempts; nothing else lives there
	Runners      map[labmesh.Kind]exec.Runner
	Results      io.Writer // takes a line of JSON for each result; nil for nothing
	Attached     func(url string)
	Logger       *slog.Logger
}

// Worker is a light worker.
type Worker struct {
	cfg   Config
	desk  *desk
	work  *exec.Worker
	token string
	noted labmesh.TaskID // the result that was written down last
}

// Open readies a worker.
func Open(ctx context.Context, cfg Config) (*Worker, error) {
	for _, u := range cfg.URLs {
		if _, err := socketURL(u); err != nil {
			return nil, err
		}
	}
	if len(cfg.URLs) == 0 {
		return nil, labmesh.RefuseField("coordinator", "--coordinator: give the URL of a node, e.g. http://127.0.0.1:8080")
	}
	w := &Worker{cfg: cfg, desk: newDesk(cfg.Worker)}
	var err error
	w.work, err = exec.Open(ctx, exec.Config{Worker: cfg.Worker, Dir: cfg.Dir, Slots: 1, Desk: w.desk, Runners: cfg.Runners, Logger: cfg.Logger})
	return w, err
}

// Close releases what Open took.
func (w *Worker) Close() error { return w.work.Close() }

// socketURL is the WebSocket of the node at a URL.
func socketURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "", labmesh.RefuseField("coordinator", "--coordinator: %q is no URL of a node, such as http://127.0.0.1:8080", text)
	}
	switch u.Scheme {
	case "http", "ws":
		u.Scheme = "ws"
	case "https", "wss":
		u.Scheme = "wss"
	default:
		return "", labmesh.RefuseField("coordinator", "--coordinator: %q: it begins with http:// or https://", text)
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/ws") + "/ws"
	return u.String(), nil
}

// Run works until ctx ends, or the mesh does not want this worker. It then stops what runs and says so.
func (w *Worker) Run(ctx context.Context) error {
	var working sync.WaitGroup
	stay, leave := context.WithCancel(context.WithoutCancel(ctx)) // the socket outlives the work, for its last words
	defer leave()
	work, stop := context.WithCancel(ctx)
	working.Go(func() {
		_ = w.work.Run(work)
		if len(w.desk.pending()) > 0 {
			defer time.AfterFunc(lastWait, leave).Stop()
			for len(w.desk.pending()) > 0 && stay.Err() == nil {
				select {
				case <-time.After(againMin):
				case <-stay.Done():
				}
			}
		}
		leave()
	})
	err := w.keepAttached(stay)
	stop()
	working.Wait()
	return err
}

// errDenied is a refusal that another try would not change.
type errDenied struct{ message string }

func (e errDenied) Error() string { return e.message }

// errNext is why a socket is left for the next one: it has had its task.
var errNext = errors.New("this socket has had its task")

func (w *Worker) keepAttached(ctx context.Context) error {
	at, wait := 0, againMin
	for ctx.Err() == nil {
		u := w.cfg.URLs[at%len(w.cfg.URLs)]
		began := time.Now()
		err := w.attach(ctx, u)
		var denied errDenied
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errNext):
			wait = againMin
			continue
		case errors.As(err, &denied) && w.token != "":
			w.token = "" // it may have ended: the key is asked for again
			continue
		case errors.As(err, &denied):
			return labmesh.Refuse(labmesh.Denied, "%s: %s", u, denied.message)
		}
		if time.Since(began) > beatEvery {
			wait = againMin
		}
		w.cfg.Logger.InfoContext(ctx, "not attached", "to", u, "why", err)
		at++
		select {
		case <-time.After(wait/2 + rand.N(wait)):
		case <-ctx.Done():
		}
		wait = min(2*wait, againMax)
	}
	return nil
}

// message is what a node says, of whichever type.
type message struct {
	light.Execute
	Status  string `json:"status"`
	Message string `json:"message"`
	Token   string `json:"token"`
}

// attach speaks with one node by one socket until that ends.
func (w *Worker) attach(ctx context.Context, node string) error {
	u, err := socketURL(node)
	if err != nil {
		return err
	}
	dialing, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	conn, reply, err := websocket.Dial(dialing, u, nil)
	if reply != nil && reply.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%s has no WebSocket for workers: is it a node of labmesh?", node)
	}
	if err != nil {
		return fmt.Errorf("reach %s: %w", node, err)
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(light.FrameOutMax)
	if err := w.greet(ctx, conn); err != nil {
		return err
	}
	if w.cfg.Attached != nil {
		w.cfg.Attached(node)
	}
	return w.converse(ctx, conn)
}

// greet says who this is, and what it can do.
func (w *Worker) greet(ctx context.Context, conn *websocket.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	auth := map[string]any{"type": light.TypeAuth, "auth_type": "api_key", "api_key": w.cfg.Key, "worker_id": w.cfg.Worker}
	if w.token != "" {
		auth = map[string]any{"type": light.TypeAuth, "auth_type": "token", "token": w.token, "worker_id": w.cfg.Worker}
	}
	if err := say(conn, auth); err != nil {
		return err
	}
	m, err := hear(ctx, conn)
	switch {
	case err != nil:
		return err
	case m.Status != "success" && (m.Message == light.ErrorInvalidKey || m.Message == light.ErrorInvalidToken):
		return errDenied{m.Message}
	case m.Status != "success":
		return errors.New(m.Message)
	}
	w.token = m.Token
	var kinds []labmesh.Kind
	for _, k := range labmesh.Kinds() {
		if w.cfg.Runners[k] != nil {
			kinds = append(kinds, k)
		}
	}
	if err := say(conn, map[string]any{"type": light.TypeRegister, "worker_id": w.cfg.Worker, "hostname": w.cfg.Hostname, "capabilities": w.cfg.Capabilities, "kinds": kinds}); err != nil {
		return err
	}
	if m, err = hear(ctx, conn); err == nil && m.Type != light.TypeRegisterResponse {
		err = errDenied{m.Message}
		w.token = ""
	}
	return err
}

func say(conn *websocket.Conn, message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeWait)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, data)
}

func hear(ctx context.Context, conn *websocket.Conn) (m message, err error) {
	_, data, err := conn.Read(ctx)
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(data, &m)
}

// converse sends heartbeats and results, and takes tasks, until the socket ends or has had its task.
func (w *Worker) converse(ctx context.Context, conn *websocket.Conn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	said := make(chan message)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer func() { _ = conn.CloseNow() }()
	reading.Go(func() {
		for {
			m, err := hear(ctx, conn)
			if err != nil {
				cancel(err)
				return
			}
			select {
			case said <- m:
			case <-ctx.Done():
				return
			}
		}
	})
	sent := map[labmesh.TaskID]bool{}
	send := func() error {
		for _, r := range w.desk.pending() {
			if sent[r.Task] {
				continue
			}
			sent[r.Task] = true
			if err := w.hand(conn, r); err != nil {
				return err
			}
		}
		return nil
	}
	err := send()
	if err == nil {
		err = w.beat(conn)
	}
	beat, ping := time.NewTicker(beatEvery), time.NewTicker(pingEvery)
	defer beat.Stop()
	defer ping.Stop()
	for err == nil {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-beat.C:
			err = w.beat(conn)
		case <-ping.C:
			reading.Go(func() {
				alive, done := context.WithTimeout(ctx, writeWait)
				defer done()
				if perr := conn.Ping(alive); perr != nil {
					cancel(fmt.Errorf("the node does not answer: %w", perr))
				}
			})
		case <-w.desk.ended:
			err = send()
		case m := <-said:
			err = w.follow(ctx, m, sent)
		}
	}
	return err
}

// follow does what a node says.
func (w *Worker) follow(ctx context.Context, m message, sent map[labmesh.TaskID]bool) error {
	switch m.Type {
	case light.TypeExecuteTask:
		w.cfg.Logger.InfoContext(ctx, "task", "id", m.Task, "type", m.Kind)
		w.desk.put(m.Execute)
	case light.TypeCancelTask:
		w.desk.cancel(m.Task)
	case light.TypeTaskResultResponse:
		w.desk.settled(m.Task)
		return errNext
	case light.TypeError:
		w.cfg.Logger.WarnContext(ctx, "the node says that something is wrong", "what", m.Message)
		for id := range sent { // the mesh does not want it
			if m.Message == light.ErrorNotYours(id) || m.Message == light.ErrorNoTask(id) {
				w.desk.settled(id)
				return errNext
			}
		}
	}
	return nil
}

func (w *Worker) beat(conn *websocket.Conn) error {
	m := map[string]any{"type": light.TypeHeartbeat, "worker_id": w.cfg.Worker, "timestamp": light.Stamp(time.Now())}
	if id := w.desk.busy(); id != "" {
		m["task_status"] = map[string]any{"task_id": id, "status": "running"}
	}
	return say(conn, m)
}

// hand sends a result, without what would make it too long to be read.
func (w *Worker) hand(conn *websocket.Conn, r result) error {
	data, err := json.Marshal(r)
	if err == nil && len(data) > light.FrameInMax {
		r.Rows, r.Cases = nil, nil
		data, err = json.Marshal(r)
	}
	if err != nil {
		return err
	}
	if w.cfg.Results != nil && w.noted != r.Task {
		w.noted = r.Task
		if _, err := w.cfg.Results.Write(append(data, '\n')); err != nil {
			w.cfg.Logger.Warn("result not written down", "err", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), writeWait)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, data)
}
