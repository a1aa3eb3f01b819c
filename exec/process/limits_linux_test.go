package process_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"labmesh/exec/cgroup"
	"labmesh/exec/output"
	"labmesh/exec/process"
)

func TestLimitsAreHeldWhereTheyCanBe(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *process.Host, dir string) {
		have, absent := h.Holds()
		if len(have)+len(absent) != len(cgroup.Controllers()) {
			t.Fatalf("held: %q, not held: %q", have, absent)
		}
		c, _ := sh(dir, `x=$(head -c 60000000 /dev/zero | tr '\0' x); exit 3`)
		c.Limits = cgroup.Limits{Memory: 24 << 20}
		exit, err := h.Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(have, cgroup.Memory) {
			if exit.Signal != syscall.SIGKILL || !exit.OOM || exit.PeakMemory < 12<<20 || len(exit.NotHeld) > 0 {
				t.Errorf("%+v", exit)
			}
		} else if exit.Code != 3 || exit.OOM || !slices.Equal(exit.NotHeld, []string{cgroup.Memory}) {
			t.Errorf("without: %+v", exit)
		}
		c, o := sh(dir, `for i in 1 2 3 4 5 6 7 8; do sleep 0.2 & done; wait`)
		c.Limits = cgroup.Limits{Pids: 4}
		if exit, err = h.Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if said := o.Excerpt(output.Stderr).Text; slices.Contains(have, cgroup.Pids) != strings.Contains(strings.ToLower(said), "cannot fork") {
			t.Errorf("%+v, %q", exit, said)
		}
	})
}
