package mirror

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/output"
)

// Limits of a keeper.
const (
	linksMax     = 256      // streams served at the same time
	openMax      = 4096     // attempts of one stream under way at the same time
	lookEvery    = 16 << 20 // bytes of one stream taken between two looks at the disk
	sweepAfter   = 1 << 30  // bytes taken, from all, until old copies are swept out of turn
	answerWait   = 10 * time.Second
	endedName    = "ended" // a file that says that the copy saw the attempt's end
	dirMode      = 0o700
	listenBuffer = 32 << 10
)

// KeeperConfig says how a keeper keeps. Dir must be set.
type KeeperConfig struct {
	Dir    string // holds <task>/<attempt>/ of each attempt; nothing else lives there
	Keep   exec.Keep
	Full   func() bool // whether the disk has no room for copies; nil means below [exec.DiskFloor]
	Logger *slog.Logger
}

// DefaultKeep is which copies a keeper keeps unless told otherwise.
func DefaultKeep() exec.Keep {
	return exec.Keep{Age: 7 * 24 * time.Hour, Attempts: 20_000, Bytes: 4 << 30}
}

// Keeper keeps copies of what attempts on other nodes print.
type Keeper struct {
	cfg   KeeperConfig
	much  chan struct{} // has one in it when much has come
	taken atomic.Int64  // bytes since it had

	mu   sync.Mutex
	open map[key]*entry
}

type key struct {
	task    labmesh.TaskID
	attempt int
}

// entry is an attempt whose output comes now.
type entry struct {
	out *output.Output
	via *session // who may write to it: the newest to open it
}

// OpenKeeper makes the keeper's directory.
func OpenKeeper(cfg KeeperConfig) (*Keeper, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Keep == (exec.Keep{}) {
		cfg.Keep = DefaultKeep()
	}
	if err := os.MkdirAll(cfg.Dir, dirMode); err != nil {
		return nil, fmt.Errorf("open mirror: %w", err)
	}
	if cfg.Full == nil {
		floor, err := exec.DiskFloor(cfg.Dir)
		if err != nil {
			return nil, fmt.Errorf("open mirror: %w", err)
		}
		cfg.Full = func() bool { return below(cfg.Dir, floor) }
	}
	return &Keeper{cfg: cfg, much: make(chan struct{}, 1), open: make(map[key]*entry)}, nil
}

// Serve takes what senders send over the listener's streams, and sweeps what is
// old, until ctx ends. It closes the listener.
func (k *Keeper) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var serving sync.WaitGroup
	defer serving.Wait()
	serving.Go(func() { k.sweepLoop(ctx) })
	room := make(chan struct{}, linksMax)
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil //nolint:nilerr // the listener was closed, as ctx ended
		}
		room <- struct{}{}
		serving.Go(func() {
			defer func() { <-room }()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			s := &session{k: k, conn: conn, attempts: make(map[uint64]key)}
			defer s.close()
			if err := s.run(); err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
				k.cfg.Logger.DebugContext(ctx, "a mirrored stream broke off", "from", conn.RemoteAddr(), "err", err)
			}
		})
	}
}

// Copy says what is there of an attempt.
type Copy struct {
	Sizes [2]int64 // how much of stdout and of stderr, counting what was left out
	Ended bool     // it is all there is: the attempt ended, and that was seen
}

// Find says what is there of an attempt's output, and opens it for reading by
// [output.Output.Open]. An attempt of which there is nothing is refused as NotFound.
func (k *Keeper) Find(task labmesh.TaskID, attempt int) (*output.Output, Copy, error) {
	k.mu.Lock()
	e := k.open[key{task, attempt}]
	k.mu.Unlock()
	dir := exec.AttemptDir(k.cfg.Dir, task, attempt)
	var o *output.Output
	if e != nil {
		o = e.out
	} else {
		if _, err := os.Stat(dir); err != nil {
			return nil, Copy{}, labmesh.Refuse(labmesh.NotFound, "no copy of the output of attempt %d of %s is here", attempt, task)
		}
		var err error
		if o, err = output.Load(dir); err != nil {
			return nil, Copy{}, err
		}
	}
	c := Copy{Sizes: sizes(o)}
	if e == nil {
		_, err := os.Stat(filepath.Join(dir, endedName))
		c.Ended = err == nil
	}
	return o, c, nil
}

func sizes(o *output.Output) [2]int64 {
	return [2]int64{o.Size(output.Stdout), o.Size(output.Stderr)}
}

// session is one sender's stream.
type session struct {
	k        *Keeper
	conn     net.Conn
	attempts map[uint64]key
	taken    int64 // bytes since the last look at the disk
}

func (s *session) run() error {
	r := bufio.NewReaderSize(s.conn, listenBuffer)
	buf := make([]byte, frameBytesMax)
	for {
		f, err := readFrame(r, buf)
		if err != nil {
			return err
		}
		switch f.kind {
		case opening:
			err = s.begin(f)
		case data:
			err = s.take(f)
		case ending:
			s.end(f)
		default:
			err = errFrame
		}
		if err != nil {
			return err
		}
	}
}

// begin readies the copy of an attempt and says how much of it is here already.
func (s *session) begin(f frame) error {
	id := key{f.task, f.attempt}
	if len(s.attempts) >= openMax || s.k.cfg.Full() {
		return s.answer(frame{kind: refused, number: f.number})
	}
	out, err := s.k.takeOver(id, s)
	if err != nil {
		s.k.cfg.Logger.Warn("a copy of output cannot be kept", "task", f.task, "attempt", f.attempt, "err", err)
		return s.answer(frame{kind: refused, number: f.number})
	}
	s.attempts[f.number] = id
	return s.answer(frame{kind: have, number: f.number, sizes: sizes(out)})
}

// takeOver opens the copy of an attempt for a session, and for no other from then on.
func (k *Keeper) takeOver(id key, s *session) (*output.Output, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.open[id]; e != nil {
		e.via = s
		return e.out, nil
	}
	dir := exec.AttemptDir(k.cfg.Dir, id.task, id.attempt)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, err
	}
	out, err := output.Resume(dir)
	if err != nil {
		return nil, err
	}
	k.open[id] = &entry{out, s}
	return out, nil
}

// own is the entry that the session may write to under a number.
func (s *session) own(number uint64) (e *entry, id key) {
	id, ok := s.attempts[number]
	if !ok {
		return nil, id
	}
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if e = s.k.open[id]; e == nil || e.via != s {
		return nil, id
	}
	return e, id
}

// take keeps some output. What is here already is not taken twice.
func (s *session) take(f frame) error {
	e, _ := s.own(f.number)
	if e == nil {
		return nil // of an attempt that was refused, or opened anew elsewhere
	}
	size := e.out.Size(f.stream)
	if f.offset > size {
		e.out.Skip(f.stream, f.offset)
		size = f.offset
	}
	if known := size - f.offset; known < int64(len(f.bytes)) {
		e.out.Write(f.stream, f.bytes[known:])
	}
	if s.taken += int64(len(f.bytes)); s.taken < lookEvery {
		return nil
	}
	s.k.tookMuch(s.taken)
	s.taken = 0
	if s.k.cfg.Full() {
		s.drop(f.number)
		return s.answer(frame{kind: refused, number: f.number})
	}
	return nil
}

// tookMuch counts what was taken, and has old copies swept when it comes to much.
func (k *Keeper) tookMuch(n int64) {
	if k.taken.Add(n) < sweepAfter {
		return
	}
	k.taken.Store(0)
	select {
	case k.much <- struct{}{}:
	default: // it will be looked at anyway
	}
}

// end notes that an attempt has ended, and what was missed of it.
func (s *session) end(f frame) {
	if e, id := s.own(f.number); e != nil {
		for i, stream := range output.Streams() {
			e.out.Skip(stream, f.sizes[i])
		}
		path := filepath.Join(exec.AttemptDir(s.k.cfg.Dir, id.task, id.attempt), endedName)
		_ = os.WriteFile(path, nil, 0o600) // without it the copy only looks less whole than it is
	}
	s.drop(f.number)
}

// drop lets go of an attempt.
func (s *session) drop(number uint64) {
	if e, id := s.own(number); e != nil {
		s.k.mu.Lock()
		delete(s.k.open, id)
		s.k.mu.Unlock()
		e.out.Close()
	}
	delete(s.attempts, number)
}

// close lets go of all that the session had open.
func (s *session) close() {
	for number := range s.attempts {
		s.drop(number)
	}
}

func (s *session) answer(f frame) error {
	_ = s.conn.SetWriteDeadline(time.Now().Add(answerWait))
	_, err := s.conn.Write(f.append(nil))
	return err
}
