package bench_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labmesh"
	"labmesh/bench"
	"labmesh/exec/keeper"
)

// fakeArg makes the test binary play a runner that behaves as the next argument says.
const fakeArg = "fake-runner"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "keeper" {
		window, err := time.ParseDuration(os.Args[3])
		if err = errors.Join(err, keeper.Main(os.Args[2], window)); err != nil {
			panic(err)
		}
		return
	}
	if len(os.Args) == 4 && os.Args[1] == fakeArg && os.Args[3] == "run" {
		os.Exit(newFake(os.Args[2]).run())
	}
	goleak.VerifyTestMain(m)
}

// fake is a runner whose times are made up, and which misbehaves.
type fake struct {
	mode string
	spec bench.Spec
	seq  int
	term chan os.Signal
}

func newFake(mode string) *fake {
	f := &fake{mode: mode, term: make(chan os.Signal, 1)}
	if err := json.NewDecoder(os.Stdin).Decode(&f.spec); err != nil {
		panic(err)
	}
	signal.Notify(f.term, syscall.SIGTERM)
	return f
}

func (f *fake) say(kind bench.EventKind, e bench.Event) {
	f.seq++
	e.V, e.Seq, e.Kind = bench.Protocol, f.seq, kind
	data, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	if _, err := os.Stdout.Write(append(data, '\n')); err != nil {
		os.Exit(9)
	}
}

func (f *fake) run() int {
	fmt.Fprintln(os.Stderr, "the fake runner was here:", f.mode)
	switch f.mode {
	case "barren":
		fmt.Fprintln(os.Stderr, "ImportError: libgarbage.so.1")
		return 3
	case "hang":
		signal.Ignore(syscall.SIGTERM)
		time.Sleep(time.Hour)
	case "garbage":
		for range 1000 {
			fmt.Println("Some library was so kind to print this; and \x00\xff {\"v\":")
		}
		fmt.Println(strings.Repeat("[", 1<<20))
	case "escape":
		f.escape()
	case "nospace": // a file where a directory of the attempt's is to be
		if err := os.WriteFile(filepath.Join(os.Getenv("TMPDIR"), "..", "keep"), nil, 0o600); err != nil {
			panic(err)
		}
	}
	f.say(bench.EventHello, bench.Event{Runner: "fake", RunnerVersion: "1.2.3", Pid: os.Getpid(), Env: f.env()})
	if f.mode == "unknown" {
		f.say(bench.EventFatal, bench.Event{Code: "unknown_model", Message: "there is no such model"})
		return 1
	}
	f.say(bench.EventModel, bench.Event{Name: f.spec.Model, Source: "builtin", Weights: "random", Params: 10, FLOPs: 1e6, LoadS: new(0.5),
		Requested: f.spec.Precision, Effective: "fp32", DeviceClass: map[bool]string{true: "tpu", false: "cpu"}[f.mode == "elsewhere"], DeviceName: "made up", Threads: max(f.spec.Threads, 1)})
	if f.mode == "nomem" {
		f.say(bench.EventFatal, bench.Event{Code: "out_of_memory", Message: "the model does not fit"})
		return 1
	}
	for i, n := range f.spec.BatchSizes {
		if f.mode == "skips" && i == 1 {
			continue
		}
		if stop := f.batch(n); stop {
			return 0
		}
		if f.mode == "nodone" {
			return 4
		}
	}
	f.say(bench.EventDone, bench.Event{})
	return 0
}

func (f *fake) env() json.RawMessage {
	data, _ := json.Marshal(map[string]string{
		"omp": os.Getenv("OMP_NUM_THREADS"), "hf": os.Getenv("HF_HUB_OFFLINE"), "cuda": os.Getenv("CUDA_VISIBLE_DEVICES"),
		"task": os.Getenv("OF_TASK"), "config": os.Getenv("OF_CONFIG"), "both": os.Getenv("OF_BOTH"),
	})
	return data
}

// times are what the fake says that iterations took: of some spread, and the same on every run.
func (f *fake) times(n, size int) (ms [][]float64) {
	for i := range n {
		ms = append(ms, []float64{float64(size) * (1 + float64(i*7%10)/100)})
	}
	return ms
}

func (f *fake) batch(size int) (stop bool) {
	f.say(bench.EventBatchStart, bench.Event{Batch: size})
	if size == 2 {
		f.misbehave()
	}
	f.say(bench.EventWarmup, bench.Event{Batch: size, N: 10, FirstMS: new(50.0), Stable: new(true)})
	ms, status, n := f.times(f.spec.Iterations, size), labmesh.BenchOK, f.spec.Iterations
	switch {
	case f.mode == "unsupported" || f.mode == "half" && size == 2:
		f.say(bench.EventBatchEnd, bench.Event{Batch: size, Status: labmesh.BenchUnsupported, Reason: "no fp16 on cpu"})
		return false
	case f.mode == "oom" && size >= 4:
		f.say(bench.EventBatchEnd, bench.Event{Batch: size, Status: labmesh.BenchOOM, Reason: "cannot allocate"})
		return false
	case f.mode == "absurd":
		ms[0], ms[1], ms[2], ms[3] = []float64{-1}, []float64{0}, []float64{1e300}, []float64{}
	case f.mode == "wrongstatus":
		status = "splendid"
	case f.mode == "slow":
		return f.slowly(size, ms)
	}
	for at := 0; at < len(ms); at += 256 {
		f.say(bench.EventSamples, bench.Event{Batch: size, I0: at, MS: ms[at:min(at+256, len(ms))]})
	}
	wall := 0.0
	for _, t := range ms {
		if len(t) > 0 {
			wall += t[0] / 1000
		}
	}
	f.say(bench.EventBatchEnd, bench.Event{Batch: size, Status: status, N: n, WallS: &wall, CPUMS: new(900 * wall), HostPeak: new(int64(1 << 20)), Finite: new(true), Checksum: "abc"})
	return false
}

// slowly measures in real time, and minds SIGTERM.
func (f *fake) slowly(size int, ms [][]float64) (stop bool) {
	for i := range ms {
		select {
		case <-f.term:
			f.say(bench.EventBatchEnd, bench.Event{Batch: size, Status: labmesh.BenchCancelled, N: i})
			f.say(bench.EventDone, bench.Event{})
			return true
		case <-time.After(20 * time.Millisecond):
			f.say(bench.EventSamples, bench.Event{Batch: size, I0: i, MS: ms[i : i+1]})
		}
	}
	f.say(bench.EventBatchEnd, bench.Event{Batch: size, Status: labmesh.BenchOK, N: len(ms)})
	return false
}

// misbehave does, at a batch size of 2, what the mode says.
func (f *fake) misbehave() {
	switch f.mode {
	case "segfault":
		fmt.Fprintln(os.Stderr, "about to follow a bad pointer")
		_ = syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -SEGV $$"}, nil) // ours would catch it
	case "killed":
		var hog [][]byte
		for {
			b := make([]byte, 8<<20)
			for i := range b {
				b[i] = 1
			}
			hog = append(hog, b)
			if len(hog) > 1000 {
				os.Exit(8) // nobody holds us
			}
		}
	case "mute":
		time.Sleep(time.Hour)
	case "lost":
		f.say(bench.EventFatal, bench.Event{Code: "device_lost", Message: "an illegal memory access was encountered"})
		os.Exit(1)
	case "junk":
		fmt.Println("loss: nan")
	case "gap":
		f.seq++
	case "endless":
		block := slices.Repeat([]byte("x"), 1<<20)
		for range 100 {
			_, _ = os.Stdout.Write(block)
		}
		fmt.Println()
	}
}

// escape leaves a process behind that does not belong to the runner's group, and
// says its number in the file escaped.
func (f *fake) escape() {
	c := osexec.Command("sleep", "1000")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.Stdout = os.Stdout // so that the pipe stays open
	if err := c.Start(); err != nil {
		panic(err)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("OF_TASK"), "escaped"), []byte(strconv.Itoa(c.Process.Pid)), 0o600); err != nil {
		panic(err)
	}
}
