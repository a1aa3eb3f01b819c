package process_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"labmesh/exec/output"
	"labmesh/exec/process"
)

// keptVar makes the test binary play an agent with a keeper, which runs the
// script of a directory for an attempt, or takes it up, and writes down how it ended.
const keptVar = "PROCESS_TEST_KEPT"

const keptWindow = 5 * time.Second

// keptAgent is that agent. It never ends by itself before it has the result.
func keptAgent(dir string) {
	h, o := openKept(dir, os.Getenv("PROCESS_TEST_NO_CGROUPS") != "")
	exit, err := h.Run(context.Background(), keptCommand(dir, o))
	if err != nil {
		panic(err)
	}
	o.Close()
	data, err := json.Marshal(exit)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "result.new"), data, 0o600)
	}
	if err == nil {
		err = os.Rename(filepath.Join(dir, "result.new"), filepath.Join(dir, "result"))
	}
	if err != nil {
		panic(err)
	}
	select {} // until it is killed: the result is not reported yet
}

func openKept(dir string, noCgroups bool) (*process.Host, *output.Output) {
	h, err := process.Open(context.Background(), process.Config{Dir: filepath.Join(dir, "running"), NoCgroups: noCgroups, Keeper: keep(), Window: keptWindow})
	if err != nil {
		panic(err)
	}
	o, err := output.Resume(dir)
	if err != nil {
		panic(err)
	}
	return h, o
}

func keptCommand(dir string, o *output.Output) process.Command {
	return process.Command{Path: "/bin/sh", Args: []string{"sh", filepath.Join(dir, "script")}, Dir: dir, Env: os.Environ(), Output: o,
		Attempt: "t/1", Ordinal: 1, Grace: 200 * time.Millisecond}
}

// keptDir is a directory with a script in it.
func keptDir(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endKeeper(t, dir) })
	return dir
}

// startAgent starts an agent for dir.
func startAgent(t *testing.T, dir string, noCgroups bool) *osexec.Cmd {
	t.Helper()
	cmd := osexec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), keptVar+"="+dir)
	if noCgroups {
		cmd.Env = append(cmd.Env, "PROCESS_TEST_NO_CGROUPS=1")
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func kill(cmd *osexec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func keeperOf(dir string) int {
	data, _ := os.ReadFile(filepath.Join(dir, "running", "keeper.lock"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// endKeeper waits until the keeper of dir is gone, which a test has left to itself.
func endKeeper(t *testing.T, dir string) {
	t.Helper()
	pid := keeperOf(dir)
	if pid == 0 {
		return
	}
	_ = syscall.Kill(pid, syscall.SIGTERM) // it may be gone
	for deadline := time.Now().Add(10 * time.Second); running(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("the keeper %d did not end", pid)
			return
		}
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// lines is what a script prints that counts to n.
func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "line %d\n", i+1)
	}
	return b.String()
}

func TestAnAgentKilledAtAnyMomentLosesNothing(t *testing.T) {
	t.Parallel()
	const n = 400
	script := fmt.Sprintf(`echo started >>starts; i=0
while [ $i -lt %d ]; do i=$((i+1)); echo "line $i"; echo "err $i" >&2; [ $((i %% 4)) = 0 ] && sleep 0.002; done
exit 7`, n)
	for round := range 4 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			dir := keptDir(t, script)
			lives := 0
			for deadline := time.Now().Add(60 * time.Second); !exists(filepath.Join(dir, "result")); lives++ {
				if time.Now().After(deadline) {
					t.Fatal("it never ended")
				}
				agent := startAgent(t, dir, round%2 == 1)
				until := time.Now().Add(time.Duration(rand.Int64N(int64(150 * time.Millisecond))))
				for time.Now().Before(until) && !exists(filepath.Join(dir, "result")) {
					time.Sleep(time.Millisecond)
				}
				kill(agent)
			}
			// The attempt was not reported: a last life must find the same.
			h, o := openKept(dir, round%2 == 1)
			defer h.Close()
			if age, ok := h.Attempts()["t/1"]; !ok || age <= 0 {
				t.Errorf("the attempt is not known any more: %v", h.Attempts())
			}
			exit, err := h.Run(t.Context(), keptCommand(dir, o))
			if err != nil || exit.Code != 7 || exit.Stopped {
				t.Errorf("after %d lives: %+v, %v", lives, exit, err)
			}
			starts, _ := os.ReadFile(filepath.Join(dir, "starts"))
			out, _ := os.ReadFile(filepath.Join(dir, "stdout"))
			errs, _ := os.ReadFile(filepath.Join(dir, "stderr"))
			if string(starts) != "started\n" || string(out) != lines(n) || string(errs) != strings.ReplaceAll(lines(n), "line", "err") {
				t.Errorf("after %d lives: started %q, %d bytes of %d and %d of %d printed:\n%s", lives, starts, len(out), len(lines(n)), len(errs), len(lines(n))-n, out)
			}
			h.Forget("t/1")
		})
	}
}

func TestWhatEndsWhileNobodyIsThereIsKnown(t *testing.T) {
	t.Parallel()
	dir := keptDir(t, `echo $$ >pid; echo before; while [ ! -e go ]; do sleep 0.01; done; echo after; head -c 300000 /dev/zero; touch gone; exit 9`)
	agent := startAgent(t, dir, true)
	await(t, filepath.Join(dir, "pid"))
	kill(agent)
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, filepath.Join(dir, "gone")) // it printed more than a pipe holds
	h, o := openKept(dir, true)
	defer h.Close()
	exit, err := h.Run(t.Context(), keptCommand(dir, o))
	out, _ := os.ReadFile(filepath.Join(dir, "stdout"))
	if want := "before\nafter\n" + strings.Repeat("\x00", 300_000); err != nil || exit.Code != 9 || string(out) != want {
		t.Errorf("%+v, %v, %d bytes of %d", exit, err, len(out), len(want))
	}
}

func TestTheKeeperFencesItself(t *testing.T) {
	t.Parallel()
	for _, none := range []bool{false, true} {
		t.Run(fmt.Sprint("no cgroups ", none), func(t *testing.T) {
			t.Parallel()
			dir := keptDir(t, "")
			// Its environment is empty: neither token nor anything else tells whose it is.
			script := fmt.Sprintf(`(env -i setsid sh -c 'trap "" TERM HUP; echo $$ >%[1]s/stray.new; mv %[1]s/stray.new %[1]s/stray; sleep 1000' &); while [ ! -s stray ]; do sleep 0.01; done; cp stray pids; echo $$ >>pids; mv pids all; exec sleep 1000`, dir)
			if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			agent := startAgent(t, dir, none)
			await(t, filepath.Join(dir, "all"))
			kill(agent)
			began, keeper := time.Now(), keeperOf(dir)
			for _, pid := range pids(t, filepath.Join(dir, "all")) {
				if !running(pid) {
					t.Fatalf("%d did not outlive its agent", pid)
				}
			}
			for deadline := began.Add(keptWindow + 5*time.Second); running(keeper); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the keeper did not end")
				}
			}
			if took := time.Since(began); took < keptWindow-100*time.Millisecond {
				t.Errorf("it ended after %v", took)
			}
			gone(t, filepath.Join(dir, "all"))
			h, o := openKept(dir, none)
			defer h.Close()
			if left := h.Attempts(); len(left) > 0 {
				t.Errorf("what was killed is said to be left: %v", left)
			}
			o.Close()
		})
	}
}

func TestAnEndIsKnownAlsoWhenTheKeeperIsGone(t *testing.T) {
	t.Parallel()
	dir := keptDir(t, `echo $$ >pid; sleep 0.3; echo last words; exit 4`)
	agent := startAgent(t, dir, true)
	await(t, filepath.Join(dir, "pid"))
	kill(agent)
	keeper := keeperOf(dir)
	for deadline := time.Now().Add(keptWindow + 10*time.Second); running(keeper); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the keeper did not end")
		}
	}
	h, o := openKept(dir, true)
	defer h.Close()
	exit, err := h.Run(t.Context(), keptCommand(dir, o))
	if err != nil || exit.Code != 4 || o.Excerpt(output.Stdout).Text != "last words\n" {
		t.Errorf("%+v, %v, %q", exit, err, o.Excerpt(output.Stdout).Text)
	}
}

func TestAKeeperThatIsKilledTakesItsProgramsAlong(t *testing.T) {
	t.Parallel()
	for _, none := range []bool{false, true} {
		t.Run(fmt.Sprint("no cgroups ", none), func(t *testing.T) {
			t.Parallel()
			dir := keptDir(t, "")
			script := escape(dir) + "; cp stray all.new; echo $$ >>all.new; mv all.new all; exec sleep 1000"
			if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			h, o := openKept(dir, none)
			defer h.Close()
			ended := make(chan error, 1)
			go func() {
				_, err := h.Run(t.Context(), keptCommand(dir, o))
				ended <- err
			}()
			await(t, filepath.Join(dir, "all"))
			_ = syscall.Kill(keeperOf(dir), syscall.SIGKILL)
			if err := <-ended; !errors.Is(err, process.ErrLost) {
				t.Errorf("it ended with %v", err)
			}
			gone(t, filepath.Join(dir, "all"))
			c, _ := sh(dir, "exit 3") // a new keeper
			if exit, err := h.Run(t.Context(), c); err != nil || exit.Code != 3 {
				t.Errorf("the program after it: %+v, %v", exit, err)
			}
		})
	}
}

func TestAgentAndKeeperKilledLeaveNothingToTheNextLife(t *testing.T) {
	t.Parallel()
	for _, none := range []bool{false, true} {
		t.Run(fmt.Sprint("no cgroups ", none), func(t *testing.T) {
			t.Parallel()
			dir := keptDir(t, "")
			script := escape(dir) + "; cp stray all.new; echo $$ >>all.new; mv all.new all; exec sleep 1000"
			if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			agent := startAgent(t, dir, none)
			await(t, filepath.Join(dir, "all"))
			kill(agent)
			_ = syscall.Kill(keeperOf(dir), syscall.SIGKILL)
			h, o := openKept(dir, none)
			defer h.Close()
			gone(t, filepath.Join(dir, "all"))
			if left := h.Attempts(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			o.Close()
		})
	}
}

func TestDetachLeavesProgramsToTheNextLife(t *testing.T) {
	t.Parallel()
	dir := keptDir(t, `echo one; touch ready; while [ ! -e go ]; do sleep 0.01; done; echo two; exit 5`)
	h, o := openKept(dir, false)
	ended := make(chan error, 1)
	go func() {
		_, err := h.Run(t.Context(), keptCommand(dir, o))
		ended <- err
	}()
	await(t, filepath.Join(dir, "ready"))
	if !h.Detach() {
		t.Error("nothing to detach from")
	}
	if err := <-ended; !errors.Is(err, process.ErrDetached) {
		t.Errorf("it ended with %v", err)
	}
	o.Close()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h, o = openKept(dir, false)
	defer h.Close()
	exit, err := h.Run(t.Context(), keptCommand(dir, o))
	if err != nil || exit.Code != 5 || o.Excerpt(output.Stdout).Text != "one\ntwo\n" {
		t.Errorf("%+v, %v, %q", exit, err, o.Excerpt(output.Stdout).Text)
	}
}

func TestDropEndsWhatNobodyWants(t *testing.T) {
	t.Parallel()
	for _, none := range []bool{false, true} {
		t.Run(fmt.Sprint("no cgroups ", none), func(t *testing.T) {
			t.Parallel()
			dir := keptDir(t, "")
			script := escape(dir) + "; cp stray all.new; echo $$ >>all.new; mv all.new all; exec sleep 1000"
			if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			agent := startAgent(t, dir, none)
			await(t, filepath.Join(dir, "all"))
			kill(agent)
			h, o := openKept(dir, none)
			defer h.Close()
			if _, ok := h.Attempts()["t/1"]; !ok {
				t.Fatalf("left: %v", h.Attempts())
			}
			h.Drop("t/1")
			gone(t, filepath.Join(dir, "all"))
			c := keptCommand(dir, o) // it is another's now
			c.Args = []string{"sh", "-c", "exit 6"}
			if exit, err := h.Run(t.Context(), c); err != nil || exit.Code != 6 {
				t.Errorf("%+v, %v", exit, err)
			}
		})
	}
}

func TestALongCommandAndAUmaskArrive(t *testing.T) {
	t.Parallel()
	dir := keptDir(t, "")
	h, o := openKept(dir, true)
	defer h.Close()
	mask := 0o027
	long := strings.Repeat("x", 100_000)
	exit, err := h.Run(t.Context(), process.Command{Path: "/bin/sh", Args: []string{"sh", "-c", `umask; ulimit -n; echo ${#1} ${#2}`, "sh", long, long}, Dir: dir, Output: o,
		Umask: &mask, Rlimits: []process.Rlimit{{Resource: syscall.RLIMIT_CORE, Soft: 0, Max: 0}}})
	if out := o.Excerpt(output.Stdout).Text; err != nil || exit.Code != 0 || !strings.HasPrefix(out, "0027\n") || !strings.HasSuffix(out, "100000 100000\n") {
		t.Errorf("%+v, %v, %q", exit, err, out)
	}
	c, o := sh(t.TempDir(), "umask")
	if _, err := h.Run(t.Context(), c); err != nil || o.Excerpt(output.Stdout).Text == "0027\n" {
		t.Errorf("the umask stayed: %v, %q", err, o.Excerpt(output.Stdout).Text)
	}
}

func TestDetachWhileTheKeeperStarts(t *testing.T) {
	t.Parallel()
	for round := range 8 {
		dir := keptDir(t, `echo x >>begun; echo one; sleep 0.5; echo two; exit 5`)
		h, o := openKept(dir, round%2 == 0)
		ended := make(chan error, 1)
		go func() {
			_, err := h.Run(t.Context(), keptCommand(dir, o))
			ended <- err
		}()
		for keeperStarted := filepath.Join(dir, "running", "keeper.sock"); !exists(keeperStarted); {
			time.Sleep(time.Duration(round) * time.Millisecond)
		}
		h.Detach()
		if err := <-ended; !errors.Is(err, process.ErrDetached) {
			t.Errorf("it ended with %v", err)
		}
		o.Close()
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		h, o = openKept(dir, round%2 == 0)
		// One that has begun must be known. On a busy machine the agent may have gone
		// before it asked for the program: then it must not have begun.
		_, known := h.Attempts()["t/1"]
		if begun := exists(filepath.Join(dir, "begun")); begun && !known {
			said, _ := os.ReadFile(filepath.Join(dir, "running", "keeper.log"))
			t.Errorf("round %d: the attempt began and is not known; the keeper said: %s", round, said)
		}
		exit, err := h.Run(t.Context(), keptCommand(dir, o))
		if err != nil || exit.Code != 5 || o.Excerpt(output.Stdout).Text != "one\ntwo\n" {
			t.Errorf("round %d: %+v, %v, %q", round, exit, err, o.Excerpt(output.Stdout).Text)
		}
		if begun, err := os.ReadFile(filepath.Join(dir, "begun")); string(begun) != "x\n" {
			t.Errorf("round %d: it began %d times, %v", round, len(begun)/2, err)
		}
		o.Close()
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestProgramsHaveTheSystemsTimerSlackWhateverTheAgents(t *testing.T) {
	t.Parallel()
	dir := keptDir(t, "")
	h, o := openKept(dir, true)
	defer h.Close()
	runtime.LockOSThread() // it is the thread's, and whoever it starts inherits it
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 300_000, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }()
	c := keptCommand(dir, o)
	c.Path, c.Args = "/bin/cat", []string{"cat", "/proc/self/timerslack_ns"}
	if exit, err := h.Run(t.Context(), c); err != nil || exit.Code != 0 {
		t.Fatalf("%+v, %v", exit, err)
	}
	o.Close()
	if got := strings.TrimSpace(string(o.Excerpt(output.Stdout).Text)); got != "50000" {
		t.Errorf("timer slack of a program: %s ns, not 50000", got)
	}
}
