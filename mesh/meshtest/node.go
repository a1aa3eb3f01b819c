package meshtest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"labmesh/mesh"
)

// pollInterval is how often a wait looks at what it waits for.
const pollInterval = 5 * time.Millisecond

// Node is a host that runs.
type Node struct {
	*mesh.Host
	stop func()
}

// Start opens a host and runs it until Stop, or until the test ends.
func Start(t testing.TB, cfg mesh.Config) *Node {
	t.Helper()
	h, err := mesh.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("start node: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx) }()
	n := &Node{Host: h, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("run node: %v", err)
		}
		if err := h.Close(); err != nil {
			t.Errorf("close node: %v", err)
		}
	})}
	t.Cleanup(n.Stop)
	return n
}

// Stop ends the node as a clean shutdown would. It is safe twice.
func (n *Node) Stop() { n.stop() }

// Wait waits until cond holds, and fails the test when it does not within limit.
func Wait(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// WaitFull waits until every node is connected to every other and has heard its
// advert.
func WaitFull(t testing.TB, nodes []*Node, limit time.Duration) {
	t.Helper()
	Wait(t, limit, "all nodes know all", func() bool { return Full(nodes) })
}

// Full says whether every node is connected to every other and has heard it.
func Full(nodes []*Node) bool {
	for _, a := range nodes {
		if len(a.Connected()) < len(nodes)-1 {
			return false
		}
		heard := a.Heard()
		for _, b := range nodes {
			if _, ok := heard[b.ID()]; !ok {
				return false
			}
		}
	}
	return true
}
