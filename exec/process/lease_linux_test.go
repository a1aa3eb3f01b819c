package process_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	osexec "os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"labmesh/exec/output"
	"labmesh/exec/process"
)

// leasedVar makes the test binary play an agent whose lease is renewed for as long as it lives. It runs
// two attempts in one directory, one that may go on without it and one that may not, and writes down how they ended.
const leasedVar = "PROCESS_TEST_LEASED"

const (
	leasedWindow = 300 * time.Millisecond
	leasedTime   = time.Second // that the attempt which may not go on outlasts
)

func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

func leasedAgent(dir string, noCgroups bool) {
	h := openLeased(dir, noCgroups)
	h.Renewed(boottime())
	for _, name := range []string{"stop", "keep"} {
		go func() {
			exit, err := h.Run(context.Background(), leasedCommand(dir, name))
			path := filepath.Join(dir, name, "result")
			if err := errors.Join(os.WriteFile(path+".new", fmt.Appendf(nil, "%d %v", exit.Code, err), 0o600), os.Rename(path+".new", path)); err != nil {
				panic(err)
			}
		}()
	}
	for {
		time.Sleep(50 * time.Millisecond)
		h.Renewed(boottime())
	}
}

func openLeased(dir string, noCgroups bool) *process.Host {
	h, err := process.Open(context.Background(), process.Config{Dir: filepath.Join(dir, "running"), NoCgroups: noCgroups, Keeper: keep(), Window: leasedWindow})
	if err != nil {
		panic(err)
	}
	return h
}

// leasedCommand leaves a child behind that is not of its group, and ends when there is a file named go.
func leasedCommand(dir, name string) process.Command {
	work := filepath.Join(dir, name)
	o, err := output.Resume(work)
	if err != nil {
		panic(err)
	}
	outlasts := map[string]time.Duration{"stop": leasedTime, "keep": math.MaxInt64}[name]
	return process.Command{Path: "/bin/sh", Args: []string{"sh", "-c", escape(work) + "; cp stray all.new; echo $$ >>all.new; mv all.new all; while [ ! -e go ]; do sleep 0.02; done; exit 3"},
		Dir: work, Env: os.Environ(), Output: o, Attempt: name + "/1", Ordinal: 1, Outlasts: outlasts}
}

// startLeased starts that agent and waits until both attempts run.
func startLeased(t *testing.T, noCgroups bool) (dir string, cmd *osexec.Cmd) {
	t.Helper()
	dir = t.TempDir()
	t.Cleanup(func() { endKeeper(t, dir) })
	for _, name := range []string{"stop", "keep"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd = osexec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), leasedVar+"="+dir), os.Stderr
	if noCgroups {
		cmd.Env = append(cmd.Env, "PROCESS_TEST_NO_CGROUPS=1")
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	await(t, filepath.Join(dir, "stop", "all"))
	await(t, filepath.Join(dir, "keep", "all"))
	return dir, cmd
}

// goes reports how many of the processes that an attempt has named still run.
func goes(t *testing.T, dir, name string) (n int) {
	t.Helper()
	for _, pid := range pids(t, filepath.Join(dir, name, "all")) {
		if running(pid) {
			n++
		}
	}
	return n
}

func eachLeased(t *testing.T, test func(t *testing.T, dir string, agent *osexec.Cmd, noCgroups bool)) {
	t.Helper()
	for _, none := range []bool{false, true} {
		t.Run(fmt.Sprint("no cgroups ", none), func(t *testing.T) {
			t.Parallel()
			dir, agent := startLeased(t, none)
			time.Sleep(2 * leasedTime) // in which the lease is renewed
			if goes(t, dir, "stop") != 2 || goes(t, dir, "keep") != 2 {
				t.Fatal("a program ended while the lease was renewed")
			}
			test(t, dir, agent, none)
		})
	}
}

func TestAStoppedAgentCannotKeepProgramsRunningThatMustNot(t *testing.T) {
	t.Parallel()
	eachLeased(t, func(t *testing.T, dir string, agent *osexec.Cmd, _ bool) {
		stopped := time.Now()
		if err := agent.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		gone(t, filepath.Join(dir, "stop", "all"))
		if took := time.Since(stopped); took < leasedTime {
			t.Errorf("killed %s after the agent was stopped, before the time it outlasts", took)
		}
		if goes(t, dir, "keep") != 2 {
			t.Error("the program that may go on has ended")
		}
		if err := agent.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		await(t, filepath.Join(dir, "stop", "result"))
		if got, err := os.ReadFile(filepath.Join(dir, "stop", "result")); err != nil || string(got) != "0 "+process.ErrCut.Error() {
			t.Errorf("the agent says of it: %s, %v", got, err)
		}
		letGo(t, dir)
		await(t, filepath.Join(dir, "keep", "result"))
		if got, err := os.ReadFile(filepath.Join(dir, "keep", "result")); err != nil || string(got) != "3 <nil>" {
			t.Errorf("the agent says of the one that went on: %s, %v", got, err)
		}
	})
}

func TestProgramsOutliveAnAgentThatIsKilledForAsLongAsTheyMay(t *testing.T) {
	t.Parallel()
	eachLeased(t, func(t *testing.T, dir string, agent *osexec.Cmd, none bool) {
		kill(agent)
		gone(t, filepath.Join(dir, "stop", "all"))
		time.Sleep(2 * leasedWindow)
		if goes(t, dir, "keep") != 2 {
			t.Fatal("the program that may go on has ended")
		}
		h := openLeased(dir, none)
		defer h.Close()
		if was := h.WasRenewed(); was == 0 || was > boottime()-leasedTime {
			t.Errorf("the next life hears that the lease was renewed at %s; it is %s", was, boottime())
		}
		if _, err := h.Run(t.Context(), leasedCommand(dir, "stop")); !errors.Is(err, process.ErrCut) || !errors.Is(err, process.ErrLost) {
			t.Errorf("the one that may not go on: %v", err)
		}
		letGo(t, dir)
		if exit, err := h.Run(t.Context(), leasedCommand(dir, "keep")); err != nil || exit.Code != 3 {
			t.Errorf("the one that may: %+v, %v", exit, err)
		}
	})
}

func letGo(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "keep", "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
