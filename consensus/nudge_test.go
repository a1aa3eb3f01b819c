package consensus

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

func entries(term uint64, indexes ...uint64) []*raft.Log {
	var out []*raft.Log
	for _, i := range indexes {
		out = append(out, &raft.Log{Index: i, Term: term, Data: make([]byte, 1<<20)})
	}
	return out
}

func TestAPeerIsToldOnlyWhatItAcknowledgedInThisTerm(t *testing.T) {
	t.Parallel()
	n := newNudger(func(term uint64) bool { return term == 3 })
	n.done = 12
	ok := &raft.AppendEntriesResponse{Success: true}
	step := func(term, prev, commit uint64, logs []*raft.Log, resp *raft.AppendEntriesResponse, err error) {
		req := &raft.AppendEntriesRequest{Term: term, PrevLogEntry: prev, PrevLogTerm: 1, LeaderCommitIndex: commit, Entries: logs}
		n.sending("p", "p", req)
		n.answered("p", req, resp, err)
	}
	check := func(what string, match, term, told uint64, lacks bool) {
		t.Helper()
		p := n.peers["p"]
		if p.match != match || p.term != term || p.told != told || p.lacks(n.done) != lacks {
			t.Errorf("%s: match %d of term %d, told %d, lacks %v", what, p.match, p.term, p.told, p.lacks(n.done))
		}
	}
	step(2, 8, 8, entries(2, 9, 10), ok, nil)
	check("acknowledged", 10, 2, 8, true)
	step(3, 10, 8, nil, &raft.AppendEntriesResponse{}, nil)
	check("a new term begins from nothing, and a refusal vouches for nothing", 0, 0, 8, false)
	step(3, 9, 8, entries(3, 10, 11), nil, errors.New("lost"))
	check("no answer vouches for nothing", 0, 0, 8, false)
	step(3, 9, 8, entries(3, 10, 11), ok, nil)
	check("acknowledged again", 11, 3, 8, true)
	step(3, 11, 12, nil, ok, nil)
	check("told by raft's own message, as far as it went", 11, 3, 11, false)
	late := &raft.AppendEntriesRequest{Term: 2, Entries: entries(2, 40)}
	n.answered("p", late, ok, nil)
	check("an answer from an earlier term is nothing", 11, 3, 11, false)
}

func TestMessagesAreCutToSize(t *testing.T) {
	t.Parallel()
	req := &raft.AppendEntriesRequest{Entries: entries(1, 1, 2, 3, 4, 5, 6)}
	trim(req)
	if len(req.Entries) != appendBytesMax>>20 {
		t.Errorf("%d MiB in one message", len(req.Entries))
	}
	req = &raft.AppendEntriesRequest{Entries: []*raft.Log{{Data: make([]byte, 2*appendBytesMax)}, {}}}
	trim(req)
	if len(req.Entries) != 1 {
		t.Errorf("%d entries beside one that is too large alone", len(req.Entries))
	}
}

func FuzzFrame(f *testing.F) {
	var fr frame
	fr.begin()
	fr.put(7, []byte("wake_tasks.v1 {}\n"))
	fr.put(8, nil)
	f.Add(bytes.Clone(fr.end()))
	f.Fuzz(func(_ *testing.T, data []byte) {
		body, err := readFrame(bytes.NewReader(data))
		if err == nil {
			_ = eachInFrame(body, func(_ uint64, lines []byte) error {
				_, _ = readBatch(lines)
				return nil
			})
		}
	})
}
