package chaos_test

import (
	"context"
	"net"
	"testing"
	"time"

	"labmesh/chaos"
)

// reaches reports whether a program on one host gets an answer from another.
func reaches(t *testing.T, from *chaos.Host, to string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", net.JoinHostPort(to, "9"))
	if err != nil { // a refusal is an answer
		return ctx.Err() == nil && !isTimeout(err)
	}
	return c.Close() == nil
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

func TestLinesBreakAsTheySay(t *testing.T) {
	t.Parallel()
	n := network(t)
	for range 3 {
		if _, err := n.Add(); err != nil {
			t.Skip(err)
		}
	}
	home, err := n.AddBehind()
	if err != nil {
		t.Skip(err)
	}
	a, b, c := n.Host(0), n.Host(1), n.Host(2)
	whole := func() {
		t.Helper()
		until(t, 20*time.Second, "all hosts reach each other", func() bool {
			return reaches(t, a, b.Address) && reaches(t, b, a.Address) && reaches(t, home, a.Address) && reaches(t, b, c.Address)
		})
	}
	whole()
	if err := n.Break(chaos.Cut, 0); err != nil {
		t.Fatal(err)
	}
	if reaches(t, a, b.Address) || reaches(t, b, a.Address) || reaches(t, home, a.Address) {
		t.Error("a cut host is heard, or hears others")
	}
	until(t, 20*time.Second, "the others reach each other", func() bool { return reaches(t, b, c.Address) })
	if err := n.Heal(); err != nil {
		t.Fatal(err)
	}
	whole()
}
