package consensus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"labmesh"
	"labmesh/state"
)

// Limits of comparing states.
const (
	sumEntries  = 4096             // default: entries from one sum to the next, more where the state holds more tasks
	sumPause    = time.Second      // the least time between two
	sumsKept    = 4                // the newest marks that are remembered
	sumAnswer   = 10 * time.Second // for a report to enter the log
	sumLevel    = 3                // the feature level that reports need
	divergedPat = "diverged-*.json"
)

// sums finds out whether the replicas hold the same state. At the same entries of
// the log each of them hashes its state, away from the goroutine that applies, and
// says the hash in the log (labmesh.ReportState). A replica whose hash differs from
// one that a majority of the voters agrees on is wrong, and stops.
//
// Which entries these are follows from the log and the state alone. A replica that
// is busy leaves one out: then it is not compared.
type sums struct {
	id     labmesh.NodeID
	dir    string // for the dump; "" for none
	every  uint64 // entries
	form   string
	logger *slog.Logger
	voters func() []labmesh.NodeID
	fail   func(error) error

	due chan mark // the next state to hash

	mu   sync.Mutex
	own  []mark                                            // hashed, oldest first
	said map[uint64]map[labmesh.NodeID]labmesh.ReportState // by index
}

// mark is a state that is compared.
type mark struct {
	view state.View // zero once a majority agrees
	at   uint64     // its index
	sum  []byte     // nil while it is not known
}

func newSums(cfg Config, voters func() []labmesh.NodeID, fail func(error) error) *sums {
	s := &sums{id: cfg.ID, dir: cfg.Dir, every: cfg.SumEvery, form: state.Form(), logger: cfg.Logger, voters: voters, fail: fail,
		due: make(chan mark, 1), said: map[uint64]map[labmesh.NodeID]labmesh.ReportState{}}
	if s.every == 0 {
		s.every = sumEntries
	}
	return s
}

// stride is the number of entries between two marks: so many that hashing a
// task costs no more often than once for each entry applied.
func (s *sums) stride(tasks int) uint64 {
	stride := s.every
	for stride < uint64(max(tasks, 0)) {
		stride *= 2
	}
	return stride
}

// applied is told of each entry once it is applied; before is the index that the
// state had until then. It never blocks.
func (s *sums) applied(before uint64, c *state.Cluster, e labmesh.Entry) {
	for _, cmd := range e.Commands {
		if r, ok := cmd.(labmesh.ReportState); ok {
			s.heard(r)
		}
	}
	now, tasks := c.Size()
	if stride := s.stride(tasks); before/stride == now/stride {
		return
	}
	select {
	case s.due <- mark{view: c.View(), at: now}:
	default: // it is behind: this one is left out
	}
}

// run hashes what is due and reports it, until ctx ends.
func (s *sums) run(ctx context.Context, report func(context.Context, labmesh.ReportState) error) {
	for {
		var m mark
		select {
		case m = <-s.due:
		case <-ctx.Done():
			return
		}
		h := sha256.New()
		if err := m.view.Encode(h); err != nil {
			s.logger.ErrorContext(ctx, "state not hashed", "index", m.at, "err", err)
			continue
		}
		m.sum = h.Sum(nil)
		s.summed(m)
		if m.view.Level() >= sumLevel {
			within, cancel := context.WithTimeout(ctx, sumAnswer)
			if err := report(within, labmesh.ReportState{Node: s.id, Index: m.at, Form: s.form, Sum: m.sum}); err != nil {
				s.logger.DebugContext(ctx, "hash of the state not reported", "index", m.at, "err", err)
			}
			cancel()
		}
		select {
		case <-time.After(sumPause):
		case <-ctx.Done():
			return
		}
	}
}

// summed remembers what this replica's state was.
func (s *sums) summed(m mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.own); n > 0 {
		s.own[n-1].view = state.View{} // the newest is enough to look into
	}
	if s.own = append(s.own, m); len(s.own) > sumsKept {
		s.own = s.own[1:]
	}
	s.judge(&s.own[len(s.own)-1])
}

// heard remembers what a replica, which may be this one, says of its state.
func (s *sums) heard(r labmesh.ReportState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said[r.Index] == nil {
		s.said[r.Index] = map[labmesh.NodeID]labmesh.ReportState{}
		s.forget()
	}
	if s.said[r.Index] == nil {
		return // older than all that are remembered
	}
	s.said[r.Index][r.Node] = r
	for i := range s.own {
		if s.own[i].at == r.Index {
			s.judge(&s.own[i])
		}
	}
}

// forget drops the reports on the oldest index beyond those that are kept.
func (s *sums) forget() {
	for len(s.said) > sumsKept {
		oldest := ^uint64(0)
		for index := range s.said {
			oldest = min(oldest, index)
		}
		delete(s.said, oldest)
	}
}

// judge compares what this replica's state was with what the voters say of theirs.
func (s *sums) judge(m *mark) {
	said := s.said[m.at]
	if len(said) == 0 {
		return
	}
	voters := s.voters()
	switch verdict(s.id, s.form, m.sum, said, voters) {
	case sumsAgree:
		m.view = state.View{}
	case sumsDiffer:
		s.logger.Error("replicas hold different states, and no majority of the voters agrees on one: save the data dirs of all nodes, and report this", "index", m.at)
	case sumsOdd:
		s.stop(m)
	case sumsOpen:
	}
}

// The verdicts on a sum.
type sumVerdict int

const (
	sumsOpen   sumVerdict = iota // too few have spoken
	sumsAgree                    // a majority of the voters has the same
	sumsDiffer                   // all voters have spoken, and no majority has the same
	sumsOdd                      // a majority of the voters has another: this replica is wrong
)

// verdict compares a replica's own sum with what has been said of the same entry.
func verdict(id labmesh.NodeID, form string, own []byte, said map[labmesh.NodeID]labmesh.ReportState, voters []labmesh.NodeID) sumVerdict {
	need, same, spoke := len(voters)/2+1, 0, 0
	others := map[string]int{}
	for _, v := range voters {
		switch r, ok := said[v]; {
		case v == id:
			same++
			spoke++
		case !ok:
		case r.Form != form:
			spoke++
		case bytes.Equal(r.Sum, own):
			same++
			spoke++
		default:
			spoke++
			others[string(r.Sum)]++
		}
	}
	for _, n := range others {
		if n >= need {
			return sumsOdd
		}
	}
	switch {
	case same >= need:
		return sumsAgree
	case len(others) > 0 && spoke == len(voters):
		return sumsDiffer
	}
	return sumsOpen
}

// stop ends this replica, and leaves its state to be looked into.
func (s *sums) stop(m *mark) {
	where := "its state could not be written down"
	if path, err := s.dump(m); err != nil {
		s.logger.Error("the state that differs is not written down", "err", err)
	} else if path != "" {
		where = "its state then is in " + path
	}
	_ = s.fail(fmt.Errorf("the state of this node differs from the one that a majority of the voters has at log index %d: it was changed by a fault of this machine (test its memory and disk) or of labmesh; %s. "+
		"Nothing that this node says can be trusted, so it stops: %s", m.at, where, divergedHelp))
}

const divergedHelp = "ban it (labmesh ban, on another node), keep its data dir for whoever looks for the cause, and let the machine join anew with an empty one"

// dump writes the state of a mark beside the log, for nobody else's eyes: there are secrets in it.
func (s *sums) dump(m *mark) (path string, err error) {
	if s.dir == "" || m.view.Index() == 0 {
		return "", nil
	}
	path = filepath.Join(s.dir, fmt.Sprintf("diverged-%d.json", m.at))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", fmt.Errorf("write the state at %d: %w", m.at, err)
	}
	if err = m.view.Encode(f); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("write the state at %d: %w", m.at, err)
	}
	return path, nil
}

// undiverged refuses to go on with a state that was found to be wrong.
func undiverged(dir string) error {
	if dir == "" {
		return nil
	}
	found, err := filepath.Glob(filepath.Join(dir, divergedPat))
	if err != nil || len(found) == 0 {
		return err
	}
	return labmesh.Refuse(labmesh.Conflict, "the state of this node was found to differ from that of the other nodes (%s): %s", found[0], divergedHelp)
}
