package runner_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"sync"
	"testing"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/exectest"
	"labmesh/exec/process"
	"labmesh/exec/runner"
)

// BenchmarkTrue runs /bin/true: plainly by os/exec, and through a worker, with
// cgroups and without.
func BenchmarkTrue(b *testing.B) {
	for _, slots := range []int{2, 4, 8} {
		b.Run(fmt.Sprintf("plain/slots=%d", slots), func(b *testing.B) { benchPlain(b, slots) })
		b.Run(fmt.Sprintf("worker/slots=%d", slots), func(b *testing.B) { benchWorker(b, slots, false) })
		b.Run(fmt.Sprintf("worker-no-cgroups/slots=%d", slots), func(b *testing.B) { benchWorker(b, slots, true) })
	}
}

func benchPlain(b *testing.B, slots int) {
	var running sync.WaitGroup
	todo := make(chan struct{})
	for range slots {
		running.Go(func() {
			for range todo {
				if _, err := osexec.Command("/bin/true").Output(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for b.Loop() {
		todo <- struct{}{}
	}
	close(todo)
	running.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "attempts/s")
}

func benchWorker(b *testing.B, slots int, noCgroups bool) {
	dir := b.TempDir()
	host, err := process.Open(b.Context(), process.Config{Dir: filepath.Join(dir, "running"), NoCgroups: noCgroups})
	if err != nil {
		b.Fatal(err)
	}
	defer host.Close()
	if !noCgroups && !host.Cgroups() {
		b.Skip("no cgroup v2 to be had here")
	}
	runners, err := runner.New(host, os.Environ())
	if err != nil {
		b.Fatal(err)
	}
	desk := &exectest.Desk{}
	w, err := exec.Open(b.Context(), exec.Config{Worker: "w", Dir: filepath.Join(dir, "attempts"), Slots: slots, Desk: desk, Runners: runners})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	config := json.RawMessage(`{"name":"/bin/true"}`)
	put := func(i int) {
		desk.Put(labmesh.Task{ID: labmesh.TaskID(fmt.Sprintf("t%d", i)), Attempt: 1, Phase: labmesh.Assigned, Spec: labmesh.Spec{Kind: labmesh.Custom, Config: config}})
	}
	const ahead = 8 // tasks placed on the worker beyond its slots, so that it never waits for the desk
	i := 0
	for ; i < slots+ahead; i++ {
		put(i)
	}
	for b.Loop() {
		done := labmesh.TaskID(fmt.Sprintf("t%d", i-slots-ahead))
		if o, err := desk.Await(ctx, done); err != nil || !o.OK {
			b.Fatal(o, err)
		}
		put(i)
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "attempts/s")
	cancel()
	running.Wait()
}
