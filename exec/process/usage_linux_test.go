package process_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"labmesh/exec/output"
	"labmesh/exec/process"
)

func TestKnowsTheCPUTimeOfWhatItRuns(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *process.Host, dir string) {
		before, ok := h.CPUTime()
		if !ok {
			t.Fatal("it is not known")
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			script := "echo $$ >pid.new; mv pid.new pid; while :; do :; done"
			_, _ = h.Run(ctx, process.Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Dir: dir, Output: output.New(dir), Grace: time.Millisecond})
		}()
		defer func() { cancel(); <-ended }()
		const used = 100 * time.Millisecond
		deadline := time.After(20 * time.Second)
		for now := before; now-before < used; now, _ = h.CPUTime() {
			select {
			case <-deadline:
				t.Fatalf("%v of CPU time, it was %v before", now, before)
			case <-time.After(20 * time.Millisecond):
			}
		}
		data, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil || !h.Owns(pid) || h.Owns(os.Getpid()) || h.Owns(1) {
			t.Errorf("%v: program %d owned: %v, this process: %v, the first: %v", err, pid, h.Owns(pid), h.Owns(os.Getpid()), h.Owns(1))
		}
	})
}
