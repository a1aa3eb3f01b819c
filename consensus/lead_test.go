package consensus

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestWorkIsDoneByTheLeaderAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 3, nil)
		ctx, stop := context.WithCancel(t.Context())
		var working atomic.Int32
		ended := make(chan error, 3)
		begun := make(chan string, 100)
		for id, r := range g.replicas {
			go func() {
				ended <- r.WhileLeader(ctx, func(ctx context.Context) error {
					if r.Status().Role != "leader" {
						t.Errorf("%s works and does not lead", id)
					}
					begun <- string(id)
					working.Add(1)
					defer working.Add(-1)
					<-ctx.Done()
					return nil
				})
			}()
		}
		first := <-begun
		if err := g.leader(t, "").TransferLeadership(t.Context()); err != nil {
			t.Fatal(err)
		}
		second := <-begun
		if second == first {
			t.Errorf("%s works again after it handed over", first)
		}
		synctest.Wait()
		if n := working.Load(); n != 1 {
			t.Errorf("%d work at once", n)
		}
		g.net.Cut(g.leader(t, "").cfg.ID)
		if third := <-begun; third == second {
			t.Errorf("%s works again and is cut off", third)
		}
		time.Sleep(time.Second)
		if n := working.Load(); n != 1 {
			t.Errorf("%d work while one is cut off", n)
		}
		stop()
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		g.haltAll(t)
	})
}

func TestWorkBeginsAfterAllThatWasCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 3, func(c *Config) { c.Ledger = slowLedger{c.Ledger, 100 * time.Millisecond} })
		defer g.haltAll(t)
		rc, err := g.leader(t, "").Propose(t.Context(), submit("a"))
		if err != nil {
			t.Fatal(err)
		}
		old := g.leader(t, "").cfg.ID
		g.net.Cut(old)
		seen := make(chan uint64, 1)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		for id, r := range g.replicas {
			if id != old {
				go func() {
					_ = r.WhileLeader(ctx, func(ctx context.Context) error {
						seen <- r.View().Index()
						return nil
					})
				}()
			}
		}
		if at := <-seen; at < rc.Index {
			t.Errorf("the new leader worked at %d, before %d", at, rc.Index)
		}
	})
}

func TestWorkThatFailsIsRunAgainAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 1, nil)
		defer g.haltAll(t)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var runs []time.Duration
		begun := time.Now()
		done := make(chan struct{})
		go func() {
			_ = g.replicas[name(0)].WhileLeader(ctx, func(context.Context) error {
				if runs = append(runs, time.Since(begun)); len(runs) == 4 {
					close(done)
					return nil
				}
				return errors.New("not yet")
			})
		}()
		<-done
		if total := runs[3] - runs[0]; total < 700*time.Millisecond || total > time.Second {
			t.Errorf("runs at %v", runs)
		}
	})
}

func TestTheNextWorkWaitsForTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroup(t, 3, nil)
		defer g.haltAll(t)
		leader := g.leader(t, "")
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		release := make(chan struct{})
		var at, most atomic.Int32
		begun := make(chan struct{}, 10)
		go func() {
			_ = leader.WhileLeader(ctx, func(ctx context.Context) error {
				most.Store(max(most.Load(), at.Add(1)))
				defer at.Add(-1)
				begun <- struct{}{}
				<-ctx.Done()
				<-release
				return nil
			})
		}()
		<-begun
		for leader.Status().Role == "leader" {
			_ = leader.TransferLeadership(t.Context())
		}
		for leader.Status().Role != "leader" { // back again, while the work still hangs
			_ = g.leader(t, "").TransferLeadership(t.Context())
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if len(begun) != 0 {
			t.Error("the next work did not wait")
		}
		close(release)
		<-begun
		if most.Load() != 1 {
			t.Errorf("%d at once", most.Load())
		}
	})
}

func TestTheLeadersClockOnlyGoesForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		ahead := time.Now().Add(time.Hour).UTC()
		c.start(ahead)
		if got := c.now(time.Time{}); !got.Equal(ahead) {
			t.Errorf("it starts at %v, not at the newest entry's %v", got, ahead)
		}
		time.Sleep(time.Minute)
		if got := c.now(time.Time{}); !got.Equal(ahead.Add(time.Minute)) {
			t.Errorf("after a minute: %v", got.Sub(ahead))
		}
		c.now(ahead.Add(time.Hour)) // an entry applied late
		time.Sleep(time.Minute)
		if got := c.now(ahead.Add(time.Hour)); !got.Equal(ahead.Add(time.Hour + time.Minute)) {
			t.Errorf("after a late entry: %v", got.Sub(ahead))
		}
	})
}
