package nodetest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/node/httpapi"
	"labmesh/node/nodetest"
)

var powerCuts = flag.Int("powercuts", 6, "how often all nodes lose their power at once")

func TestPowerCutsLoseNothingThatWasAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := start(t, 3, 20*time.Millisecond)
		var drawing sync.Mutex // each disk draws for itself
		source := rand.New(rand.NewPCG(7, uint64(*powerCuts)))
		draw := func(below int) int {
			drawing.Lock()
			defer drawing.Unlock()
			return source.IntN(below)
		}
		for _, n := range m.Nodes {
			n.Log().SyncTakes(3 * time.Millisecond)
		}
		var acked []labmesh.TaskID
		var worst time.Duration
		for cut := range *powerCuts {
			ctx, stop := context.WithCancel(t.Context())
			var mu sync.Mutex
			var clients sync.WaitGroup
			taken := 0
			for i := range m.Nodes {
				svc := m.Nodes[i].Service()
				clients.Go(func() {
					for ctx.Err() == nil {
						answers, err := svc.Submit(ctx, httpapi.Caller{Name: "test"}, []labmesh.Spec{{Kind: labmesh.Custom, Config: json.RawMessage(`{"name":"x"}`)}})
						if err == nil {
							mu.Lock()
							acked = append(acked, answers[0].Task)
							taken++
							mu.Unlock()
						}
						time.Sleep(time.Millisecond)
					}
				})
			}
			time.Sleep(300*time.Millisecond + time.Duration(draw(100_000))*time.Microsecond)
			m.PowerOff(t, func(n int) int { return draw(n + 1) })
			stop()
			clients.Wait()
			begun := time.Now()
			m.PowerOn(t)
			ids := []labmesh.TaskID{m.Submit(t, 0, labmesh.Spec{})}
			m.Wait(t, time.Minute, "a task to end", func() bool { return m.Task(t, 0, ids[0]).Phase.Final() })
			worst = max(worst, time.Since(begun))
			if taken == 0 {
				t.Errorf("cut %d: nothing was acknowledged before it", cut)
			}
		}
		for i := range m.Nodes {
			m.Wait(t, 5*time.Minute, "all tasks to end", func() bool {
				for _, id := range acked {
					if !m.Task(t, i, id).Phase.Final() {
						return false
					}
				}
				return true
			})
		}
		for _, id := range acked {
			ended(t, m, id, labmesh.Completed, 0, 1, 2)
		}
		t.Logf("%d power cuts of all nodes, %d tasks acknowledged, 0 lost; a task was done at most %v after the power came back", *powerCuts, len(acked), worst)
	})
}

func TestANodeWithAnotherStateStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.StartComparing(t, 3, 32, map[labmesh.Kind]exec.Runner{labmesh.Custom: &nodetest.Runner{Takes: 10 * time.Millisecond}})
		hurt := (m.Leader(t).Index + 1) % 3
		other := (hurt + 1) % 3
		m.Nodes[hurt].Log().Spoil(func(data []byte) []byte {
			return bytes.Replace(data, []byte(`"name":"fine"`), []byte(`"name":"bent"`), 1)
		})
		for range 60 {
			m.Submit(t, other, labmesh.Spec{Config: json.RawMessage(`{"name":"fine"}`)})
			time.Sleep(200 * time.Millisecond)
		}
		err := m.Ended(t, hurt, time.Minute)
		if err == nil || !strings.Contains(err.Error(), "differs from the one that a majority") {
			t.Errorf("it ended with: %v", err)
		}
		id := m.Submit(t, other, labmesh.Spec{})
		m.Wait(t, time.Minute, "the others to go on", func() bool { return m.Task(t, other, id).Phase.Final() })
	})
}
