package consensus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
)

func TestCommandsReachEveryReplicaFromAnyOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 3, nil)
		defer g.haltAll(t)
		for id, r := range g.replicas {
			rc, err := r.Propose(t.Context(), submit("from-"+string(id)))
			if err != nil {
				t.Fatalf("propose at %s: %v", id, err)
			}
			if len(rc.Answers) != 1 || rc.Answers[0].Task != labmesh.TaskID("from-"+id) {
				t.Errorf("answer at %s: %+v", id, rc.Answers)
			}
			for at, other := range g.replicas {
				if err := other.Await(t.Context(), rc.Index); err != nil {
					t.Fatal(err)
				}
				if _, ok := other.View().Task(labmesh.TaskID("from-" + id)); !ok {
					t.Errorf("%s does not see the task from %s at %d", at, id, rc.Index)
				}
			}
		}
	})
}

func TestIdleFollowersLearnOfACommitAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 3, nil)
		defer g.haltAll(t)
		leader := g.leader(t, "")
		for i := range 20 {
			time.Sleep(time.Second + time.Duration(i)*time.Millisecond)
			rc, err := leader.Propose(t.Context(), submit(fmt.Sprint(i)))
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			for id, r := range g.replicas {
				if err := r.Await(t.Context(), rc.Index); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(begun); d > 5*time.Millisecond {
					t.Errorf("%s applied entry %d after %v", id, rc.Index, d)
				}
			}
		}
	})
}

func TestAReceiptOutlivesTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 5, nil)
		defer g.haltAll(t)
		var acked sync.Map
		var proposing sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		for id, r := range g.replicas {
			proposing.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					task := fmt.Sprintf("%s-%d", id, i)
					if rc, err := r.Propose(ctx, submit(task)); err == nil {
						acked.Store(task, rc.Index)
					} else if got := labmesh.ReasonOf(err); got != labmesh.Unavailable {
						t.Errorf("propose: %s: %v", got, err)
					}
					time.Sleep(25 * time.Millisecond)
				}
			})
		}
		time.Sleep(time.Second)
		for range 3 {
			old := g.leader(t, "").cfg.ID
			g.net.Cut(old)
			g.leader(t, old)
			time.Sleep(2 * time.Second)
			g.net.Heal(old)
			time.Sleep(time.Second)
		}
		stop()
		proposing.Wait()
		last, err := g.leader(t, "").Propose(t.Context(), submit("last"))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for id, r := range g.replicas {
			if err := r.Await(t.Context(), last.Index); err != nil {
				t.Fatalf("%s: %v", id, err)
			}
			v := r.View()
			acked.Range(func(task, index any) bool {
				n++
				if _, ok := v.Task(labmesh.TaskID(task.(string))); !ok {
					t.Errorf("%s lost %s, which was acknowledged at %d", id, task, index)
				}
				return true
			})
			seen := map[labmesh.TaskID]bool{}
			for _, e := range r.ledger.events {
				if e.Type == labmesh.TaskSubmitted && seen[e.Task.ID] {
					t.Errorf("%s has %s twice", id, e.Task.ID)
				}
				if e.Task != nil {
					seen[e.Task.ID] = true
				}
			}
		}
		if n < 5*250 {
			t.Errorf("only %d tasks were acknowledged and looked for", n/5)
		}
	})
}

func TestAnOldLeaderThatIsCutOffAcceptsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 3, nil)
		defer g.haltAll(t)
		old := g.leader(t, "")
		g.net.Cut(old.cfg.ID)
		begun := time.Now()
		_, err := old.ProposeHere(t.Context(), submit("lost"))
		if labmesh.ReasonOf(err) != labmesh.Unavailable || !strings.Contains(err.Error(), "safe to repeat") {
			t.Errorf("propose at a cut-off leader: %v", err)
		}
		if d := time.Since(begun); d > time.Second {
			t.Errorf("it took %v to refuse", d)
		}
		begun = time.Now()
		_, err = old.Propose(t.Context(), submit("lost"))
		if labmesh.ReasonOf(err) != labmesh.Unavailable || !strings.Contains(err.Error(), "nothing has been done") {
			t.Errorf("propose with no leader: %v", err)
		}
		if d := time.Since(begun); d < leaderWaitMax || d > leaderWaitMax+time.Second {
			t.Errorf("it waited %v for a leader", d)
		}
		if _, err := g.leader(t, old.cfg.ID).Propose(t.Context(), submit("kept")); err != nil {
			t.Error(err)
		}
		if old.View().Known("lost") {
			t.Error("the old leader applied what it could not commit")
		}
		g.net.Heal(old.cfg.ID)
		rc, err := old.Propose(t.Context(), submit("healed"))
		if err != nil {
			t.Fatal(err)
		}
		if err := old.Await(t.Context(), rc.Index); err != nil {
			t.Fatal(err)
		}
		if v := old.View(); v.Known("lost") || !v.Known("kept") || !v.Known("healed") {
			t.Errorf("after healing: lost %v, kept %v, healed %v", v.Known("lost"), v.Known("kept"), v.Known("healed"))
		}
	})
}

func TestProposalsWaitOutAnElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 3, nil)
		defer g.haltAll(t)
		old := g.leader(t, "")
		g.net.Cut(old.cfg.ID)
		time.Sleep(400 * time.Millisecond) // the others know by now that there is no leader
		for id, r := range g.replicas {
			if r == old {
				continue
			}
			if _, err := r.Propose(t.Context(), submit(string(id))); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	})
}

func TestARestartedReplicaResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 3, nil)
		defer g.haltAll(t)
		before, err := g.leader(t, "").Propose(t.Context(), submit("before"))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range g.replicas {
			if err := r.Await(t.Context(), before.Index); err != nil {
				t.Fatal(err)
			}
		}
		for id := range g.replicas {
			g.halt(t, id)
		}
		for id, r := range g.replicas {
			<-r.ended
			g.start(t, id, id == name(0)) // Found must do nothing now
		}
		rc, err := g.leader(t, "").Propose(t.Context(), submit("after"))
		if err != nil {
			t.Fatal(err)
		}
		for id, r := range g.replicas {
			if err := r.Await(t.Context(), rc.Index); err != nil {
				t.Fatal(err)
			}
			if !r.View().Known("before") {
				t.Errorf("%s has forgotten", id)
			}
			if n := len(r.ledger.events); n != 2 {
				t.Errorf("the ledger of %s has %d events", id, n)
			}
		}
	})
}

func TestANewcomerIsGivenASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 1, nil)
		defer g.haltAll(t)
		first := g.leader(t, "")
		var rc labmesh.Receipt
		for i := range 50 {
			var err error
			if rc, err = first.Propose(t.Context(), submit(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		first.ledger.stuck = make(chan struct{})
		taken := make(chan error, 1)
		go func() { taken <- first.node.Load().Snapshot().Error() }()
		time.Sleep(time.Minute)
		select {
		case err := <-taken:
			t.Fatalf("a snapshot was taken before the ledger was there: %v", err)
		default:
		}
		close(first.ledger.stuck)
		if err := <-taken; err != nil {
			t.Fatal(err)
		}
		if err := first.storage.DeleteRange(1, rc.Index); err != nil {
			t.Fatal(err)
		}
		second := g.start(t, name(1), false)
		if err := first.AddLearner(t.Context(), name(1)); err != nil {
			t.Fatal(err)
		}
		if err := second.Await(t.Context(), rc.Index); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if !second.View().Known("0") || second.ledger.required != rc.Index || len(second.ledger.events) != 0 {
			t.Errorf("known %v, required %d of %d, %d events", second.View().Known("0"),
				second.ledger.required, rc.Index, len(second.ledger.events))
		}
		if s := second.Status(); s.Role != "follower" || len(s.Voters) != 1 || len(s.Learners) != 1 || s.Leader != name(0) {
			t.Errorf("status: %+v", s)
		}
	})
}

func TestAnEntryOfAnotherVersionStopsTheReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 3, nil)
		leader := g.leader(t, "")
		at := leader.View().Index()
		data := labmesh.JoinEntry(time.Now(), []byte("teleport_task.v9 {}\n"))
		err := leader.node.Load().Apply(data, 0).Error()
		if err != nil {
			t.Fatal(err)
		}
		ended := map[labmesh.NodeID]error{leader.cfg.ID: <-leader.ended}
		time.Sleep(time.Second)
		for id, r := range g.replicas {
			if r == leader {
				continue
			}
			r.stop() // one that was not told of the commit in time cannot have met the entry
			if err := <-r.ended; err != nil {
				ended[id] = err
			}
		}
		for id, err := range ended {
			if err == nil || !strings.Contains(err.Error(), "teleport_task.v9") || !strings.Contains(err.Error(), "upgrade") {
				t.Errorf("%s ended with: %v", id, err)
			}
		}
		for id, r := range g.replicas {
			if got := r.View().Index(); got != at {
				t.Errorf("%s went from %d to %d", id, at, got)
			}
			if _, err := r.Propose(t.Context(), submit("late")); labmesh.ReasonOf(err) != labmesh.Unavailable {
				t.Errorf("propose at a stopped replica: %v", err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		again := g.start(t, leader.cfg.ID, false)
		defer again.Close()
		time.Sleep(time.Minute)
		again.stop()
		if err := <-again.ended; err != nil {
			t.Errorf("alone, it cannot know that the entry is committed: %v", err)
		}
	})
}

func TestAFollowerCannotForwardWhatTheLeaderDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 2, nil)
		defer g.haltAll(t)
		f := g.follower(t)
		leader := g.leader(t, "").cfg.ID
		_, err := f.forward.propose(t.Context(), leader, []byte("teleport_task.v9 {}\n"))
		if labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("forwarded: %v", err)
		}
		if _, err := f.Propose(t.Context(), submit("fine")); err != nil {
			t.Errorf("after it: %v", err)
		}
	})
}

func TestAForwardedCommandIsNotPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 3, nil)
		defer g.haltAll(t)
		leader := g.leader(t, "").cfg.ID
		var others []*testReplica
		for id, r := range g.replicas {
			if id != leader {
				others = append(others, r)
			}
		}
		lines, err := encodeBatch([]labmesh.Command{submit("astray")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = others[0].forward.propose(t.Context(), others[1].cfg.ID, lines)
		var early *notEnteredError
		if !errors.As(err, &early) || labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Errorf("forwarded to a follower: %v", err)
		}
		time.Sleep(time.Second)
		if others[0].View().Known("astray") {
			t.Error("a follower passed the command on")
		}
	})
}

func TestAForwardWhoseAnswerIsLostSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 2, func(c *Config) { c.Ledger = slowLedger{c.Ledger, time.Second} })
		defer g.haltAll(t)
		f := g.follower(t)
		leader := g.leader(t, "").cfg.ID
		outcome := make(chan error, 1)
		go func() {
			_, err := f.Propose(t.Context(), submit("fate"))
			outcome <- err
		}()
		time.Sleep(100 * time.Millisecond) // it is in the log, and the leader's ledger is busy
		g.net.Cut(leader)
		err := <-outcome
		if labmesh.ReasonOf(err) != labmesh.Unavailable || !strings.Contains(err.Error(), "safe to repeat") {
			t.Errorf("outcome: %v", err)
		}
		g.net.Heal(leader)
	})
}

// slowLedger holds back the replica.
type slowLedger struct {
	Ledger
	pause time.Duration
}

func (l slowLedger) Append(index uint64, events []labmesh.Event) {
	time.Sleep(l.pause)
	l.Ledger.Append(index, events)
}

func TestWhatArrivesTogetherIsOneEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 3, func(c *Config) { c.Ledger = slowLedger{c.Ledger, 10 * time.Millisecond} })
		defer g.haltAll(t)
		const callers = 500
		var mu sync.Mutex
		entries := map[uint64]int{}
		var calling sync.WaitGroup
		for i := range callers {
			r := g.replicas[name(i%3)]
			calling.Go(func() {
				rc, err := r.Propose(t.Context(), submit(fmt.Sprintf("%d-a", i)), submit(fmt.Sprintf("%d-b", i)))
				if err != nil {
					t.Error(err)
					return
				}
				if len(rc.Answers) != 2 || rc.Answers[1].Task != labmesh.TaskID(fmt.Sprintf("%d-b", i)) {
					t.Errorf("caller %d was answered %+v", i, rc.Answers)
				}
				mu.Lock()
				defer mu.Unlock()
				entries[rc.Index]++
			})
		}
		calling.Wait()
		if len(entries) > 50 {
			t.Errorf("%d callers made %d entries", callers, len(entries))
		}
	})
}

func TestLimitsOnWhatIsProposed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		cmds []labmesh.Command
		want labmesh.Reason
	}{
		{"nothing", nil, labmesh.Invalid},
		{"too many", make([]labmesh.Command, labmesh.EntryCommandsMax+1), labmesh.TooLarge},
		{"too large", []labmesh.Command{labmesh.CancelTask{Reason: strings.Repeat("x", labmesh.EntryBytesMax)}}, labmesh.TooLarge},
	} {
		if _, err := encodeBatch(tt.cmds); labmesh.ReasonOf(err) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
