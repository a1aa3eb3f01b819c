package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"labmesh"
	"labmesh/state"
)

// Standing is what the log of a stopped replica holds.
type Standing struct {
	Snapshot uint64   `json:"snapshot"` // index of the newest snapshot; 0 for none
	First    uint64   `json:"first"`    // index of the oldest entry; 0 without entries
	Last     uint64   `json:"last"`     // index of the newest entry, or of the snapshot
	LastTerm uint64   `json:"last_term"`
	Term     uint64   `json:"term"`
	Servers  []Server `json:"servers"` // the newest configuration
}

// Inspect reads the log in dir. No replica may run on it.
func Inspect(dir string, logger *slog.Logger) (st Standing, err error) {
	s, err := openStorage(Config{Dir: dir, Logger: logger})
	if err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.standing()
}

func (s *storage) standing() (st Standing, err error) {
	var conf raft.Configuration
	list, err := s.snaps.List()
	if err != nil {
		return st, fmt.Errorf("list snapshots: %w", err)
	}
	if len(list) > 0 {
		st.Snapshot, st.Last, st.LastTerm, conf = list[0].Index, list[0].Index, list[0].Term, list[0].Configuration
	}
	if st.First, err = s.FirstIndex(); err != nil {
		return st, fmt.Errorf("read log: %w", err)
	}
	last, err := s.LastIndex()
	if err != nil {
		return st, fmt.Errorf("read log: %w", err)
	}
	for index := st.First; index <= last && last > 0; index++ {
		var l raft.Log
		if err := s.read(index, &l); err != nil {
			return st, err
		}
		if l.Type == raft.LogConfiguration {
			if err := guard(func() error { conf = raft.DecodeConfiguration(l.Data); return nil }); err != nil {
				return st, err
			}
		}
		st.Last, st.LastTerm = index, l.Term
	}
	if st.Term, err = s.GetUint64([]byte("CurrentTerm")); err != nil && err.Error() != "not found" {
		return st, fmt.Errorf("read term: %w", err)
	}
	for _, srv := range conf.Servers {
		st.Servers = append(st.Servers, Server{ID: labmesh.NodeID(srv.ID), Voter: srv.Suffrage == raft.Voter})
	}
	return st, nil
}

// Alone makes self the only replica of the mesh whose log is in dir, and puts
// commands behind all that is there. What others acknowledged and this log lacks is
// lost: only a person can say that nobody else is left. No replica may run on dir.
//
// It adds a configuration to the log, in a term of its own, as
// raft.RecoverCluster would but for the snapshot: the ledger may yet need the entries.
func Alone(dir string, self labmesh.NodeID, logger *slog.Logger, cmds ...labmesh.Command) (err error) {
	s, err := openStorage(Config{Dir: dir, Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	st, err := s.standing()
	if err != nil {
		return err
	}
	if st.Last == 0 {
		return labmesh.Refuse(labmesh.Invalid, "recover: the log in %s is empty", dir)
	}
	term := max(st.Term, st.LastTerm) + 1
	if err := s.write("write term", func() error { return s.entryStore.SetUint64([]byte("CurrentTerm"), term) }); err != nil {
		return err
	}
	entry, err := labmesh.Entry{At: time.Now().UTC(), Commands: cmds}.Encode()
	if err != nil {
		return err
	}
	return s.StoreLogs([]*raft.Log{
		{Index: st.Last + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(alone(self)), AppendedAt: time.Now()},
		{Index: st.Last + 2, Term: term, Type: raft.LogCommand, Data: entry, AppendedAt: time.Now()},
	})
}

func alone(self labmesh.NodeID) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(self), Address: raft.ServerAddress(self)}}}
}

// Seed begins a log in dir, which has none, with a state as its snapshot and self as
// the only replica. The commands are its first entry.
func Seed(dir string, self labmesh.NodeID, logger *slog.Logger, v state.View, cmds ...labmesh.Command) (err error) {
	s, err := openStorage(Config{Dir: dir, Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if st, err := s.standing(); err != nil || st.Last > 0 {
		return errors.Join(err, labmesh.Refuse(labmesh.Conflict, "there is a log in %s", dir))
	}
	const term = 1
	_, trans := raft.NewInmemTransport(raft.ServerAddress(self)) // only asked for the form of addresses
	sink, err := s.snaps.Create(raft.SnapshotVersionMax, v.Index(), term, alone(self), 1, trans)
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := v.Encode(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := s.write("write term", func() error { return s.entryStore.SetUint64([]byte("CurrentTerm"), term) }); err != nil {
		return err
	}
	entry, err := labmesh.Entry{At: time.Now().UTC(), Commands: cmds}.Encode()
	if err != nil {
		return err
	}
	return s.StoreLog(&raft.Log{Index: v.Index() + 1, Term: term, Type: raft.LogCommand, Data: entry, AppendedAt: time.Now()})
}
