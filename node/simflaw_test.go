package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"labmesh"
	"labmesh/consensus"
	"labmesh/exec"
	"labmesh/node/simtest"
)

// flaw is what is wrong with a mesh on purpose, to see that the checks find it.
type flaw string

const (
	sound         flaw = ""
	noTether      flaw = "workers go on when they are cut off"
	blindStart    flaw = "a worker begins what it holds before its desk has caught up"
	rashLeader    flaw = "a new leader does not wait for the leases of the one before"
	earlyAck      flaw = "disks acknowledge what is not yet on them"
	staleAccepted flaw = "a report of an old attempt counts as one of the newest"
	countedTwice  flaw = "the ledger counts the end of an attempt twice"
	lostSubmit    flaw = "a submit in twenty is acknowledged and forgotten"
	lostCancel    flaw = "a cancel is acknowledged and forgotten"
	staleRead     flaw = "reads are answered by a node that has not caught up"
	twoForOne     flaw = "an idempotency key that is sent again makes a new task"
	spoiltReplica flaw = "one replica understands entries otherwise"
	deafStop      flaw = "attempts go on when they are told to stop"
)

// blindLag is how long each entry takes to be applied where workers do not wait for it: one seed in ten shows it.
const blindLag = 100 * time.Millisecond

// flawSeeds is how many seeds a flaw has to show itself in.
const flawSeeds = 60

// TestTheChecksCanFail builds one flaw after another into the mesh, and has the check find it that is there for it.
func TestTheChecksCanFail(t *testing.T) {
	for _, c := range []struct {
		flaw flaw
		want error // of the checks that may find it, one that does
		plan func(seed uint64) simtest.Plan
	}{
		{noTether, errOverlaps, silences},
		{blindStart, errOverlaps, seeds(1)},
		{rashLeader, errOverlaps, seeds(1)},
		{earlyAck, errSettled, blackouts},
		{staleAccepted, errExecuted, silences},
		{countedTwice, errSettled, seeds(1)},
		{lostSubmit, errSettled, seeds(1)},
		{lostCancel, errHistory, seeds(1)},
		{staleRead, errClients, seeds(1)},
		{twoForOne, errClients, seeds(1)},
		{spoiltReplica, errReplicas, seeds(1)},
		{deafStop, errOverlaps, silences},
	} {
		t.Run(string(c.flaw), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(flawSeeds) {
				if err := play(t, c.plan(seed), c.flaw); errors.Is(err, c.want) {
					t.Logf("seed %d: %.300s", seed, err)
					return
				} else if err != nil {
					t.Logf("seed %d has something else: %.300s", seed, err)
				}
			}
			t.Errorf("not found in %d seeds: %s", flawSeeds, c.want)
		})
	}
}

// seeds are plans as they are, from a first one on.
func seeds(first uint64) func(uint64) simtest.Plan {
	return func(seed uint64) simtest.Plan { return simtest.NewPlan(first+seed, simSize) }
}

// silences is a plan in which many workers are cut off while they have something long to do.
func silences(seed uint64) simtest.Plan {
	p := simtest.NewPlan(seed, simSize)
	p.Faults = nil
	for w := range p.Size.Workers / 2 {
		p.Faults = append(p.Faults, simtest.Fault{Kind: simtest.Silence, Worker: 2 * w, At: 2 * time.Second, For: 12 * time.Second})
	}
	for i := range p.Orders {
		p.Orders[i].Job.Takes += int64(i) * 400
	}
	return p
}

// blackouts is a plan in which all machines go dark at once, again and again.
func blackouts(seed uint64) simtest.Plan {
	p := simtest.NewPlan(seed, simSize)
	p.Faults = nil
	for i := range 4 {
		p.Faults = append(p.Faults, simtest.Fault{Kind: simtest.Blackout, At: time.Duration(1+3*i) * time.Second, For: time.Second})
	}
	return p
}

// disk builds flaws into the disk of the i-th node.
func (f flaw) disk(i int, log *consensus.Memory) {
	switch {
	case f == earlyAck:
		log.AckEarly(500 * time.Millisecond)
	case f == spoiltReplica && i == 1:
		log.Spoil(func(data []byte) []byte { return bytes.ReplaceAll(data, []byte(`"by":"sim"`), []byte(`"by":"sum"`)) })
	}
}

// lease builds flaws into what a worker asks whether it may go on.
func (f flaw) lease(t *tether) exec.Lease {
	if f == noTether {
		return nil
	}
	return t
}

// tie builds flaws into what ties a tether to the mesh.
func (f flaw) tie(t tie) tie {
	if f == blindStart {
		return blindTie{t}
	}
	return t
}

type blindTie struct{ tie }

func (blindTie) Await(context.Context, uint64) error { return nil }

// led builds flaws into when a leader began.
func (f flaw) led(at time.Time) time.Time {
	if f == rashLeader {
		return at.Add(-time.Minute)
	}
	return at
}

// reports builds flaws into what becomes of the words of a worker.
func (f flaw) reports(cmds []labmesh.Command, l *simLine) []labmesh.Command {
	if f != staleAccepted {
		return cmds
	}
	out := make([]labmesh.Command, len(cmds))
	for i, c := range cmds {
		if end, ok := c.(labmesh.FinishTask); ok {
			if t, known := l.replica.View().Task(end.ID); known && t.Phase.Held() {
				end.Attempt, end.Worker = t.Attempt, t.Worker
			}
			c = end
		}
		out[i] = c
	}
	return out
}

// events builds flaws into what the ledger is told.
func (f flaw) events(events []labmesh.Event) []labmesh.Event {
	if f == blindStart {
		time.Sleep(blindLag) // so that there is something to be behind with
	}
	if f != countedTwice {
		return events
	}
	var out []labmesh.Event
	for _, e := range events {
		if out = append(out, e); e.Type == labmesh.AttemptEnded {
			out = append(out, e)
		}
	}
	return out
}

// submit builds flaws into the answer to a submit.
func (f flaw) submit(s *sim, spec *labmesh.Spec) (id labmesh.TaskID, done bool) {
	switch {
	case f == lostSubmit && s.upTo(20) == 0:
		return labmesh.TaskID(fmt.Sprint("forgotten-", spec.IdempotencyKey)), true
	case f == twoForOne:
		spec.IdempotencyKey = fmt.Sprint(spec.IdempotencyKey, "-", s.upTo(1_000_000))
	}
	return "", false
}

// reader is the node that answers a read which is asked of node i.
func (f flaw) reader(i, nodes int) int {
	if f == staleRead {
		return (i + 1) % nodes
	}
	return i
}

// stopped builds flaws into what attempts hear of their end.
func (f flaw) stopped(r exec.Runner) exec.Runner {
	if f == deafStop {
		return deafRunner{r}
	}
	return r
}

type deafRunner struct{ exec.Runner }

// Run does not hear that it is to stop.
func (r deafRunner) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	return r.Runner.Run(context.WithoutCancel(ctx), a)
}
