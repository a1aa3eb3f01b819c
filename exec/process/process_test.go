package process_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labmesh/exec/keeper"
	"labmesh/exec/output"
	"labmesh/exec/process"
)

// agentVar makes the test binary play an agent that runs a program until it is killed.
const agentVar = "PROCESS_TEST_AGENT"

// keep is how the test binary is started to play the keeper.
func keep() []string { return []string{os.Args[0], "keeper"} }

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "keeper" {
		window, err := time.ParseDuration(os.Args[3])
		if err = errors.Join(err, keeper.Main(os.Args[2], window)); err != nil {
			panic(err)
		}
		return
	}
	if dir := os.Getenv("PROCESS_TEST_KEPT"); dir != "" {
		keptAgent(dir)
	}
	if dir := os.Getenv("PROCESS_TEST_LEASED"); dir != "" {
		leasedAgent(dir, os.Getenv("PROCESS_TEST_NO_CGROUPS") != "")
	}
	if dir := os.Getenv(agentVar); dir != "" {
		agent(dir, os.Getenv("PROCESS_TEST_NO_CGROUPS") != "")
		return
	}
	goleak.VerifyTestMain(m)
}

func agent(dir string, noCgroups bool) {
	h, err := process.Open(context.Background(), process.Config{Dir: filepath.Join(dir, "running"), NoCgroups: noCgroups})
	if err != nil {
		panic(err)
	}
	_, err = h.Run(context.Background(), process.Command{Path: "/bin/sh", Args: []string{"sh", "-c", escape(dir) + "; echo $$ >" + dir + "/pids.new; cat " + dir + "/stray >>" + dir + "/pids.new; mv " + dir + "/pids.new " + dir + "/pids; exec sleep 1000"},
		Dir: dir, Env: os.Environ(), Output: output.New(dir)})
	panic(fmt.Sprint("the program ended: ", err))
}

// escape is shell that leaves a child behind, forked twice and in a session of
// its own, whose process id it waits to see in the file stray.
func escape(dir string) string {
	return fmt.Sprintf(`(setsid sh -c 'echo $$ >%[1]s/stray.new; mv %[1]s/stray.new %[1]s/stray; trap "" TERM HUP; sleep 1000' &) ; while [ ! -s %[1]s/stray ]; do sleep 0.01; done`, dir)
}

// each runs a test with cgroups and without, by a keeper and without.
func each(t *testing.T, test func(t *testing.T, h *process.Host, dir string)) {
	t.Helper()
	for _, cfg := range []process.Config{{}, {NoCgroups: true}, {Keeper: keep(), Window: time.Minute}, {NoCgroups: true, Keeper: keep(), Window: time.Minute}} {
		t.Run(fmt.Sprintf("no cgroups %v keeper %v", cfg.NoCgroups, len(cfg.Keeper) > 0), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cfg.Dir = filepath.Join(dir, "running")
			h, err := process.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if !cfg.NoCgroups && h.Cgroups() != nil {
				_ = h.Close()
				t.Skip("no cgroups can be made here")
			}
			if len(cfg.Keeper) > 0 && !h.Keeps() {
				_ = h.Close()
				t.Skip("there is no keeper on this system")
			}
			test(t, h, dir)
			if err := errors.Join(h.Close(), h.Close()); err != nil {
				t.Error(err)
			}
			left, err := os.ReadDir(filepath.Join(dir, "running"))
			left = slices.DeleteFunc(left, func(e os.DirEntry) bool { return e.Name() == "keeper.lock" || e.Name() == "keeper.log" })
			if err != nil || len(left) > 0 {
				t.Errorf("records left: %v %v", left, err)
			}
			if said, _ := os.ReadFile(filepath.Join(dir, "running", "keeper.log")); len(said) > 0 {
				t.Errorf("the keeper said: %s", said)
			}
		})
	}
}

func sh(dir, script string) (process.Command, *output.Output) {
	o := output.New(dir)
	return process.Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Dir: dir, Env: os.Environ(), Output: o, Grace: 200 * time.Millisecond}, o
}

func TestMemoryIsReportedOnceItIsMoreThanWasInherited(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h, err := process.Open(t.Context(), process.Config{Dir: filepath.Join(dir, "running")})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for script, want := range map[string]bool{"exit 0": false, "head -c 700000000 /dev/zero | tail -c 600000000 >/dev/null": true} {
		c, _ := sh(dir, script)
		exit, err := h.Run(t.Context(), c)
		if err != nil || exit.Code != 0 || exit.MaxRSS > 500_000_000 != want || !want && exit.MaxRSS != 0 {
			t.Errorf("%s: %+v, %v", script, exit, err)
		}
	}
}

func TestEndsAreToldApart(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *process.Host, dir string) {
		for script, want := range map[string]process.Exit{
			"exit 0":        {},
			"exit 3":        {Code: 3},
			"kill -KILL $$": {Code: -1, Signal: syscall.SIGKILL},
			"kill -SEGV $$": {Code: -1, Signal: syscall.SIGSEGV},
		} {
			c, _ := sh(dir, script)
			got, err := h.Run(t.Context(), c)
			if err != nil || got.Code != want.Code || got.Signal != want.Signal || got.Stopped {
				t.Errorf("%s: %+v, %v", script, got, err)
			}
		}
		c, o := sh(dir, "echo out; echo err >&2; cat; env")
		if _, err := h.Run(t.Context(), c); err != nil {
			t.Error(err)
		}
		if out := o.Excerpt(output.Stdout).Text; !strings.HasPrefix(out, "out\n") || !strings.Contains(out, process.TokenVar+"=") || o.Excerpt(output.Stderr).Text != "err\n" {
			t.Errorf("printed %q", out)
		}
	})
}

func TestWhatCannotBeStarted(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *process.Host, dir string) {
		text := filepath.Join(dir, "text")
		if err := os.WriteFile(text, []byte("no program"), 0o700); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]error{"/no/such": syscall.ENOENT, dir: syscall.EACCES, text: syscall.ENOEXEC} {
			_, err := h.Run(t.Context(), process.Command{Path: path, Args: []string{path}, Dir: dir, Output: output.New(dir)})
			var start *process.StartError
			if !errors.Is(err, want) || !errors.As(err, &start) {
				t.Errorf("%s: %v, want %v", path, err, want)
			}
		}
	})
}

func TestStopEndsTheWholeTree(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *process.Host, dir string) {
		c, _ := sh(dir, `trap "" TERM; `+escape(dir)+`; touch ready; while :; do sleep 0.05; done`)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { await(t, filepath.Join(dir, "ready")); cancel() }()
		exit, err := h.Run(ctx, c)
		if err != nil || !exit.Stopped || exit.Signal != syscall.SIGKILL {
			t.Errorf("%+v, %v", exit, err)
		}
		gone(t, filepath.Join(dir, "stray"))
		c, _ = sh(dir, "exit 3") // what ended that tree must not end the next
		if exit, err := h.Run(t.Context(), c); err != nil || exit.Code != 3 {
			t.Errorf("the program after it: %+v, %v", exit, err)
		}
	})
}

func TestStopGivesTimeToEndInPeace(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *process.Host, dir string) {
		c, o := sh(dir, `trap "echo bye; exit 7" TERM; touch ready; while :; do sleep 0.01; done`)
		c.Grace = 30 * time.Second
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { await(t, filepath.Join(dir, "ready")); cancel() }()
		exit, err := h.Run(ctx, c)
		if err != nil || !exit.Stopped || exit.Code != 7 || o.Excerpt(output.Stdout).Text != "bye\n" {
			t.Errorf("%+v, %v, %q", exit, err, o.Excerpt(output.Stdout).Text)
		}
	})
}

func TestNothingStaysBehindANormalExit(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, h *process.Host, dir string) {
		c, o := sh(dir, escape(dir)+`; sleep 1000 & echo $! >bg; echo done`) // both hold stdout open
		began := time.Now()
		exit, err := h.Run(t.Context(), c)
		if err != nil || exit.Code != 0 || exit.Stopped || o.Excerpt(output.Stdout).Text != "done\n" {
			t.Errorf("%+v, %v", exit, err)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("the stray held the attempt for %v", took)
		}
		if err := h.Close(); err != nil { // without cgroups strays are looked for a moment later
			t.Error(err)
		}
		gone(t, filepath.Join(dir, "stray"))
		gone(t, filepath.Join(dir, "bg"))
	})
}

func TestAgentKilledLeavesNothingToItsNextLife(t *testing.T) {
	t.Parallel()
	for _, none := range []string{"", "1"} {
		t.Run("no cgroups "+none, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := osexec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), agentVar+"="+dir, "PROCESS_TEST_NO_CGROUPS="+none)
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			await(t, filepath.Join(dir, "pids"))
			bystander := osexec.Command("sleep", "1000")
			if err := bystander.Start(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			for _, pid := range pids(t, filepath.Join(dir, "pids")) {
				if !running(pid) {
					t.Fatalf("%d did not outlive its agent: this test shows nothing", pid)
				}
			}
			h, err := process.Open(t.Context(), process.Config{Dir: filepath.Join(dir, "running")})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			gone(t, filepath.Join(dir, "pids"))
			if !running(bystander.Process.Pid) {
				t.Error("a process of another's was killed")
			}
			_ = bystander.Process.Kill()
			_ = bystander.Wait()
		})
	}
}

func TestSweepSparesALaterProcessOfTheSameID(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bystander := osexec.Command("sleep", "1000")
	bystander.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bystander.Process.Kill(); _ = bystander.Wait() }()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	record := fmt.Sprintf("{\"token\":\"x-1\",\"boot\":%q}\n{\"pid\":%d,\"start\":1}\n", strings.TrimSpace(string(boot)), bystander.Process.Pid)
	for name, text := range map[string]string{"x-1": record, "cut": "{\"tok"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, err := process.Open(t.Context(), process.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if !running(bystander.Process.Pid) {
		t.Error("it was killed")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("records left: %v", left)
	}
}

func TestGigabytesAreBounded(t *testing.T) {
	t.Parallel()
	const bytes = 1 << 30
	dir := t.TempDir()
	h, err := process.Open(t.Context(), process.Config{Dir: filepath.Join(dir, "running")})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	c, o := sh(dir, fmt.Sprintf("head -c %d /dev/zero", bytes))
	if exit, err := h.Run(t.Context(), c); err != nil || exit.Code != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
	o.Close()
	if lost := o.Dropped(output.Stdout); lost != bytes-output.HeadBytesMax-output.TailBytesMax {
		t.Errorf("%d bytes lost", lost)
	}
	if e := o.Excerpt(output.Stdout); e.Bytes != bytes || len(e.Text) > 8<<10 {
		t.Errorf("%d bytes counted, an excerpt of %d", e.Bytes, len(e.Text))
	}
	var size int64
	for _, name := range []string{"stdout", "stdout.tail"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
			size += info.Size()
		}
	}
	if size > output.HeadBytesMax+output.TailBytesMax+128<<10 {
		t.Errorf("%d bytes on disk", size)
	}
}

// await waits for a file to be there.
func await(t *testing.T, path string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("no %s", path)
			return
		}
	}
}

// gone waits for the processes listed in a file to be gone.
func gone(t *testing.T, path string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, pid := range pids(t, path) {
		for deadline := time.Now().Add(5 * time.Second); running(pid); <-tick.C {
			if time.Now().After(deadline) {
				t.Errorf("%d still runs", pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
				break
			}
		}
	}
}

func pids(t *testing.T, path string) (all []int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		pid, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, pid)
	}
	if len(all) == 0 {
		t.Fatalf("%s is empty", path)
	}
	return all
}

// running reports whether a process is there and no zombie.
func running(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := strings.TrimSpace(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	return rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

func TestStdoutIsTakenAndWhatIsMeasuredIsNotNiced(t *testing.T) {
	t.Parallel()
	for _, cfg := range []process.Config{{Nice: 3}, {Nice: 3, Keeper: keep(), Window: time.Minute}} {
		t.Run(fmt.Sprintf("keeper %v", len(cfg.Keeper) > 0), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cfg.Dir = filepath.Join(dir, "running")
			h, err := process.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = h.Close() }()
			own, err := osexec.Command("nice").Output()
			if err != nil {
				t.Fatal(err)
			}
			o := output.New(dir)
			defer o.Close()
			for _, brisk := range []bool{true, false} {
				var stdout bytes.Buffer
				script := "sleep 0.1; nice; seq 100000; echo aside >&2" // its group is niced as soon as it runs
				exit, err := h.Run(t.Context(), process.Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Dir: dir, Env: os.Environ(), Output: o, Stdout: &stdout, Brisk: brisk})
				if err != nil || exit.Code != 0 {
					t.Fatalf("%+v, %v", exit, err)
				}
				if first, rest, _ := strings.Cut(stdout.String(), "\n"); brisk != (first == strings.TrimSpace(string(own))) || !strings.HasSuffix(rest, "\n100000\n") {
					t.Errorf("brisk %v: niceness %s of %s, %d bytes", brisk, first, own, len(rest))
				}
			}
			if o.Size(output.Stdout) != 0 || o.Size(output.Stderr) != int64(2*len("aside\n")) {
				t.Errorf("the output has %d and %d bytes", o.Size(output.Stdout), o.Size(output.Stderr))
			}
		})
	}
}
