package process

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"labmesh/exec/cgroup"
)

// TokenVar is the environment variable that marks every process of an attempt.
const TokenVar = "LABMESH_ATTEMPT_TOKEN"

// Limits on running programs.
const (
	DefaultGrace = 5 * time.Second // between SIGTERM and SIGKILL

	pipeDelay    = 250 * time.Millisecond // for output that is still under way when the tree is dead
	strayDelay   = 100 * time.Millisecond // before strays are looked for, so that one look serves many
	readBytesMax = 32 << 10               // of output, in one read
)

// Config says how programs are run.
type Config struct {
	Dir       string // holds a record for each program that runs; nothing else lives there
	Grace     time.Duration
	Nice      int  // added to the priority number of what is run, so that the node stays responsive
	NoCgroups bool // do without cgroups even where they can be had
	Logger    *slog.Logger
	// Memory is what the machine has, in bytes. Where cgroups hold memory, all that
	// is run leaves a tenth of it to the node. 0 means no such bound.
	Memory int64

	// Keeper starts the process that runs programs so that they outlive this one;
	// the directory and the window are added to it as arguments, and it must call
	// [keeper.Main]. Without it, and where there is none, programs are children of
	// this process.
	Keeper []string
	Window time.Duration // how long programs go on without this process
}

// Host runs programs on this machine.
type Host struct {
	cfg     Config
	prefix  string // of the tokens of this life
	boot    string // of the machine
	count   atomic.Uint64
	cgroups *cgroup.Pool // nil where there are none
	absent  error        // why there are none
	kept    *kept        // nil where programs are children of this process
	records records
	buffers sync.Pool
	strays  strays
}

// Open takes up what an earlier life of this host, of the same Dir, left with
// its keeper (see [Host.Attempts]), and ends whatever else it left running. It
// never touches a process that is not of that making.
func Open(ctx context.Context, cfg Config) (*Host, error) {
	if cfg.Grace <= 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open process host: %w", err)
	}
	cfg.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open process host: %w", err)
	}
	var id [8]byte
	rand.Read(id[:])
	h := &Host{cfg: cfg, prefix: hex.EncodeToString(id[:]) + "-", boot: bootID()}
	h.records.dir = dir
	h.buffers.New = func() any { b := make([]byte, readBytesMax); return &b }
	if h.kept, err = openKept(ctx, cfg); err != nil {
		return nil, fmt.Errorf("take up what an earlier life left running: %w", err)
	}
	records, groups := h.kept.living()
	h.records.made = highest(dir)
	if n, err := sweep(ctx, dir, records); err != nil {
		return nil, fmt.Errorf("end what an earlier life left running: %w", err)
	} else if n > 0 {
		cfg.Logger.InfoContext(ctx, "ended what an earlier life left running", "attempts", n)
	}
	if err := h.openCgroups(groups); err != nil {
		return nil, err
	}
	if h.cgroups == nil {
		cfg.Logger.InfoContext(ctx, "no cgroups, will find stray processes by their environment", "err", h.absent)
	}
	return h, nil
}

// openCgroups opens the pool of cgroups, and with it ends what is in those of an
// earlier life but for those in keep.
func (h *Host) openCgroups(keep []string) (err error) {
	h.cgroups, err = cgroup.Open(cgroup.Config{Dir: h.cfg.Dir, Keep: keep, MemoryBytes: h.cfg.Memory, CPUs: runtime.NumCPU()})
	switch {
	case errors.Is(err, cgroup.ErrEscaped):
		return fmt.Errorf("end what an earlier life left running: %w", err)
	case err != nil:
		h.absent = err
	case h.cfg.NoCgroups: // they were opened for the sweep
		err = h.cgroups.Close()
		h.cgroups, h.absent = nil, errors.New("this node does without cgroups")
	}
	if h.absent != nil {
		return nil
	}
	return err
}

// Cgroups is why programs do not run in cgroups of their own, or nil where they do.
func (h *Host) Cgroups() error { return h.absent }

// Holds says what limits programs can be held to here (see [cgroup.Controllers]),
// and of the others why not.
func (h *Host) Holds() (have []string, absent map[string]string) {
	if h.cgroups == nil {
		absent = make(map[string]string)
		for _, c := range cgroup.Controllers() {
			absent[c] = h.absent.Error()
		}
		return nil, absent
	}
	return h.cgroups.Holds(), h.cgroups.Absent()
}

// Version says which cgroups programs run in, for people; "" where in none.
func (h *Host) Version() string {
	if h.cgroups == nil {
		return ""
	}
	return h.cgroups.Version()
}

// Close ends strays that are still looked for and gives back the cgroups. It is
// safe twice. No Run may be under way.
func (h *Host) Close() error {
	h.strays.flush()
	detached := h.kept.detached()
	err := h.kept.close()
	h.records.close()
	switch {
	case h.cgroups == nil:
		return err
	case detached: // the keeper may be about to start programs in them
		return errors.Join(err, h.cgroups.Leave())
	}
	return errors.Join(err, h.cgroups.Close())
}

func (h *Host) token() string { return h.prefix + strconv.FormatUint(h.count.Add(1), 36) }

// strays ends, a moment later and many at once, processes that outlived an
// attempt that ended by itself. It is used where there are no cgroups.
type strays struct {
	mu     sync.Mutex
	tokens map[string]bool
	timer  *time.Timer
	busy   sync.WaitGroup
}

func (s *strays) add(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens == nil {
		s.tokens = make(map[string]bool)
	}
	s.tokens[token] = true
	if s.timer == nil {
		s.busy.Add(1)
		s.timer = time.AfterFunc(strayDelay, func() {
			defer s.busy.Done()
			s.kill()
		})
	}
}

func (s *strays) kill() {
	s.mu.Lock()
	tokens := s.tokens
	s.tokens, s.timer = nil, nil
	s.mu.Unlock()
	killTokens(tokens)
}

// flush does now what is due, and waits for it.
func (s *strays) flush() {
	s.mu.Lock()
	stopped := s.timer != nil && s.timer.Stop()
	s.mu.Unlock()
	if stopped {
		s.kill()
		s.busy.Done()
	}
	s.busy.Wait()
}
