package gateway

import (
	"context"
	"errors"
	"net/http"
	"path"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"labmesh"
	"labmesh/light"
)

// Path is where light workers attach. Several slashes are as good as one: some clients put
// one more between their URL and this.
const Path = "/ws"

// Limits of a socket.
const (
	authWait   = 10 * time.Second // for its first message
	writeWait  = 5 * time.Second  // for a message to be taken
	closeWait  = time.Second      // for the other side to close as well
	silenceMax = 45 * time.Second // without a message or a ping: they come every 10 and 20 s
	outMax     = 32               // messages that wait to be written
)

// Why a socket is closed by this side.
var (
	errSilent  = errors.New("nothing was heard on it for too long")
	errUsed    = errors.New("one task a socket: connect again for the next")
	errRefused = errors.New("the mesh does not take this worker")
	errSlow    = errors.New("the worker does not read")
	errAuth    = errors.New("authentication failed")
)

// socket is one WebSocket of a light worker.
type socket struct {
	n      uint64
	opened time.Time
	conn   *websocket.Conn
	out    chan []byte
	stop   context.CancelCauseFunc
	reads  context.Context //nolint:containedctx // it is the socket's own: its end cuts the connection
	cut    context.CancelFunc
	known  bool         // it has said who it is; guarded by the gateway's mu
	last   atomic.Int64 // Unix ns of its last word

	caller Caller           // of its own goroutine alone
	named  labmesh.WorkerID // as it said when it authenticated; likewise

	worker labmesh.WorkerID // as whom it speaks; guarded by the gateway's mu
}

func (s *socket) lastWord() time.Time { return time.Unix(0, s.last.Load()) }

// say has a message written, in its turn. A worker that reads nothing loses the socket.
func (s *socket) say(message any) {
	data, err := light.Encode(message)
	if err != nil {
		s.stop(err) // cannot be: what is too large is not placed on a light worker
		return
	}
	select {
	case s.out <- data:
	default:
		s.stop(errSlow)
	}
}

func (s *socket) fail(message string) { s.say(light.Error{Type: light.TypeError, Message: message}) }

// Serves reports whether a request is for the WebSocket.
func Serves(r *http.Request) bool { return path.Clean(r.URL.Path) == Path }

// ServeHTTP takes a request over as a WebSocket, until that ends.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := &socket{opened: time.Now(), out: make(chan []byte, outMax)}
	s.reads, s.cut = context.WithCancel(context.Background())
	defer s.cut()
	s.last.Store(s.opened.UnixNano())
	ctx, ok := g.admit(s)
	if !ok {
		w.Header().Set("Retry-After", "1")
		w.Header().Set("Content-Type", "application/json")
		http.Error(w, `{"error":"this node takes no more light workers just now: attach to another"}`, http.StatusServiceUnavailable)
		return
	}
	defer g.work.Done()
	defer g.leave(s)
	var err error
	s.conn, err = websocket.Accept(w, r, &websocket.AcceptOptions{OnPingReceived: func(context.Context, []byte) bool {
		s.last.Store(time.Now().UnixNano())
		return true
	}})
	if err != nil {
		g.cfg.Logger.DebugContext(ctx, "no WebSocket", "from", r.RemoteAddr, "err", err)
		return
	}
	done := make(chan struct{})
	go func() { // ends with the socket
		defer close(done)
		s.write(ctx)
	}()
	err = g.converse(ctx, s)
	s.stop(err)
	<-done
	g.cfg.Logger.DebugContext(ctx, "WebSocket closed", "from", r.RemoteAddr, "worker", s.named, "why", context.Cause(ctx))
}

// admit numbers a socket, unless there are too many or the node stops. Its context ends when it is to be closed.
func (g *Gateway) admit(s *socket) (context.Context, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.run == nil || g.closed || len(g.sockets) >= SocketsMax || g.strangers >= StrangerMax {
		return nil, false
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancelCause(g.run)
	g.last++
	s.n = g.last
	g.sockets[s.n] = s
	g.strangers++
	g.work.Add(1)
	return ctx, true
}

func (g *Gateway) leave(s *socket) {
	s.stop(nil)
	g.mu.Lock()
	delete(g.sockets, s.n)
	if !s.known {
		g.strangers--
	}
	if a := g.sessions[s.worker]; a != nil {
		a.session.Close(s.n, time.Now())
	}
	g.mu.Unlock()
	g.nudge()
}

// write writes what is said, until the socket is to be closed, and then closes it.
func (s *socket) write(ctx context.Context) {
	for {
		select {
		case data := <-s.out:
			if !s.put(data) {
				s.stop(errSlow)
			}
			continue
		case <-ctx.Done():
		}
		break
	}
	for open := true; open; { // what was said before it was to be closed
		select {
		case data := <-s.out:
			open = s.put(data)
		default:
			open = false
		}
	}
	cause := context.Cause(ctx)
	code, why := websocket.StatusNormalClosure, ""
	switch {
	case errors.Is(cause, errStopped):
		code, why = websocket.StatusGoingAway, errStopped.Error()
	case errors.Is(cause, errAuth), errors.Is(cause, errRefused):
		code, why = websocket.StatusPolicyViolation, cause.Error()
	case errors.Is(cause, errUsed), errors.Is(cause, errSlow), errors.Is(cause, errSilent):
		why = cause.Error()
	}
	defer time.AfterFunc(closeWait, s.cut).Stop()
	_ = s.conn.Close(code, why) // whoever has gone does not hear it
}

func (s *socket) put(data []byte) bool {
	ctx, cancel := context.WithTimeout(context.Background(), writeWait)
	defer cancel()
	return s.conn.Write(ctx, websocket.MessageText, data) == nil
}

// converse reads messages and answers them until the socket ends, and says why it did.
func (g *Gateway) converse(ctx context.Context, s *socket) error {
	if err := g.meet(ctx, s); err != nil {
		return err
	}
	s.conn.SetReadLimit(light.FrameInMax)
	for {
		kind, data, err := s.conn.Read(s.reads)
		if err != nil {
			return err
		}
		s.last.Store(time.Now().UnixNano())
		if kind != websocket.MessageText {
			s.fail(light.ErrorFormat)
			continue
		}
		if err := g.take(ctx, s, data); err != nil {
			return err
		}
	}
}

// meet has a socket say who speaks.
func (g *Gateway) meet(ctx context.Context, s *socket) error {
	s.conn.SetReadLimit(light.FrameFirstMax)
	late := time.AfterFunc(authWait, func() {
		s.fail(light.ErrorAuthRequired)
		s.stop(errAuth)
	})
	_, data, err := s.conn.Read(s.reads)
	if !late.Stop() && err == nil {
		err = errAuth
	}
	if err != nil {
		return err
	}
	m, err := light.Decode(data)
	if err != nil || m.Type != light.TypeAuth {
		s.fail(light.ErrorAuthRequired)
		return errAuth
	}
	if err := g.authenticate(ctx, s, m); err != nil {
		return err
	}
	g.mu.Lock()
	g.strangers--
	s.known = true
	g.mu.Unlock()
	return nil
}

// authenticate answers an auth message.
func (g *Gateway) authenticate(ctx context.Context, s *socket, m light.Message) error {
	credential, bad := m.APIKey, light.ErrorInvalidKey
	if m.AuthType == "token" || credential == "" && m.Token != "" {
		credential, bad = m.Token, light.ErrorInvalidToken
	}
	caller, err := g.cfg.Guard.Authenticate(credential)
	worker := m.Worker
	if err == nil {
		if worker == "" {
			worker = caller.Worker
		}
		if worker == "" {
			worker = labmesh.WorkerID("w-" + g.cfg.NewID())
		}
		var token string
		if token, err = g.cfg.Guard.Mint(ctx, caller, worker); err == nil {
			s.caller, s.named = caller, worker
			s.say(light.AuthResponse{Type: light.TypeAuthResponse, Status: "success", Token: token, Worker: worker})
			return nil
		}
	}
	var refused *labmesh.Error
	if errors.As(err, &refused) && refused.Message != "" {
		if refused.Reason != labmesh.Denied {
			bad = refused.Message
		}
	}
	g.cfg.Logger.DebugContext(ctx, "light worker not let in", "worker", m.Worker, "err", err)
	s.say(light.AuthResponse{Type: light.TypeAuthResponse, Status: "error", Message: bad})
	return errAuth
}
