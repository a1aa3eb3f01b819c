package runner_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/exectest"
	"labmesh/exec/process"
	"labmesh/exec/runner"
)

// BenchmarkTrue runs /bin/true: plainly by os/exec, and through a worker, with
// cgroups and without, by the worker itself and by a keeper. The CPU time is of
// this process and its children, the keeper among them, and of theirs.
func BenchmarkTrue(b *testing.B) {
	for _, slots := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("plain/slots=%d", slots), func(b *testing.B) { benchPlain(b, slots) })
		for _, kept := range []bool{false, true} {
			by := map[bool]string{false: "direct", true: "keeper"}[kept]
			b.Run(fmt.Sprintf("%s/slots=%d", by, slots), func(b *testing.B) { benchWorker(b, slots, false, kept) })
			b.Run(fmt.Sprintf("%s-no-cgroups/slots=%d", by, slots), func(b *testing.B) { benchWorker(b, slots, true, kept) })
		}
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

func benchWorker(b *testing.B, slots int, noCgroups, kept bool) {
	dir := b.TempDir()
	cfg := process.Config{Dir: filepath.Join(dir, "running"), NoCgroups: noCgroups}
	if kept {
		cfg.Keeper, cfg.Window = []string{os.Args[0], keeperArg}, time.Minute
	}
	host, err := process.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer host.Close()
	if !noCgroups && host.Cgroups() != nil {
		b.Skip("no cgroups to be had here")
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
	before := cpuSeconds(b)
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
	if err := host.Close(); err != nil { // which reaps the keeper
		b.Error(err)
	}
	b.ReportMetric((cpuSeconds(b)-before)/float64(b.N)*1e6, "cpu-µs/attempt")
}

// cpuSeconds is what this process and its children have taken.
func cpuSeconds(b *testing.B) (sum float64) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var ru syscall.Rusage
		if err := syscall.Getrusage(who, &ru); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ru.Utime.Nano() + ru.Stime.Nano()).Seconds()
	}
	return sum
}
