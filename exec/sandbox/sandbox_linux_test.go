package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"labmesh"
	"labmesh/exec/sandbox"
)

// asSandbox has the test's own program play the parts of a sandbox.
const asSandbox = "labmesh-test-sandbox"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == asSandbox {
		os.Exit(sandbox.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// box is a box of this test, which hides the directory hidden.
func box(t *testing.T, hidden string) sandbox.Box {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := sandbox.New([]string{exe, asSandbox}, os.Environ())
	if hidden != "" {
		b.Hide = []string{hidden}
	}
	return b
}

type room struct{ dir, work, tmp, fault string }

// shut is a command that runs a shell in a sandbox.
func shut(t *testing.T, b sandbox.Box, level labmesh.Sandbox, path string, args ...string) (*exec.Cmd, *bytes.Buffer, room) {
	t.Helper()
	dir := t.TempDir()
	r := room{dir, filepath.Join(dir, "work"), filepath.Join(dir, "tmp"), filepath.Join(dir, "fault")}
	if err := errors.Join(os.Mkdir(r.work, 0o700), os.Mkdir(r.tmp, 0o700)); err != nil {
		t.Fatal(err)
	}
	path, argv, err := b.Wrap(level, sandbox.Program{Path: path, Args: args, Dir: r.work, Fault: r.fault, Work: []string{r.work}, Tmp: r.tmp})
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	var out bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = r.work, &out, &out, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, &out, r
}

// each runs test in each sandbox that this machine makes.
func each(t *testing.T, test func(t *testing.T, level labmesh.Sandbox)) {
	t.Parallel()
	_, absent := box(t, "").Probe(t.Context())
	for _, level := range labmesh.Sandboxes() {
		t.Run(string(level), func(t *testing.T) {
			if why := absent[level]; why != "" {
				t.Skip(why)
			}
			t.Parallel()
			test(t, level)
		})
	}
}

func TestProgramsEndAsTheyWouldOutside(t *testing.T) {
	each(t, func(t *testing.T, level labmesh.Sandbox) {
		for script, want := range map[string]string{
			"echo hello; exit 7": "exit status 7", "exit 137": "exit status 137", "true": "<nil>",
			"kill -TERM $$": "signal: terminated", "kill -KILL $$": "signal: killed", "kill -SEGV $$": "signal: segmentation fault", "kill -ABRT $$": "signal: aborted",
		} {
			cmd, out, _ := shut(t, box(t, ""), level, "/bin/sh", "sh", "-c", script)
			if err := cmd.Run(); fmt.Sprint(err) != want {
				t.Errorf("%s: %v, want %s: %s", script, err, want, out)
			}
		}
	})
}

func TestASandboxHasNoNetworkAndNoOthers(t *testing.T) {
	each(t, func(t *testing.T, level labmesh.Sandbox) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		cmd, out, _ := shut(t, box(t, ""), level, "/bin/sh", "sh", "-c", `
			grep -c . /proc/net/dev
			cat /sys/class/net/lo/flags 2>/dev/null; grep lo: /proc/net/dev
			ls -d /proc/[0-9]* | wc -l
			bash -c "echo x >/dev/tcp/127.0.0.1/`+port+`" 2>/dev/null && echo reached
			bash -c "echo x >/dev/tcp/192.0.2.1/80" 2>/dev/null && echo reached
			exit 0`)
		if err := cmd.Run(); err != nil {
			t.Fatal(err, out)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if lines[0] != "3" || strings.Contains(out.String(), "reached") {
			t.Errorf("it has a network: %s", out)
		}
		if n := lines[len(lines)-1]; len(n) > 1 {
			t.Errorf("it sees %s processes", n)
		}
	})
}

func TestTheLoopbackDeviceWorks(t *testing.T) {
	each(t, func(t *testing.T, level labmesh.Sandbox) {
		python, err := exec.LookPath("python3")
		if err != nil {
			t.Skip(err)
		}
		cmd, out, _ := shut(t, box(t, ""), level, python, "python3", "-c", `
import socket
s = socket.create_server(("127.0.0.1", 0))
socket.create_connection(s.getsockname()).sendall(b"x")
print(s.accept()[0].recv(1))`)
		if err := cmd.Run(); err != nil {
			t.Error(err, out)
		}
	})
}

func TestSigtermReachesTheProgram(t *testing.T) {
	each(t, func(t *testing.T, level labmesh.Sandbox) {
		cmd, _, r := shut(t, box(t, ""), level, "/bin/sh", "sh", "-c", `trap 'echo last >words; exit 9' TERM; echo up >up; while :; do sleep 0.05; done`)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "it runs", func() bool { _, err := os.Stat(filepath.Join(r.work, "up")); return err == nil })
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if words, _ := os.ReadFile(filepath.Join(r.work, "words")); fmt.Sprint(err) != "exit status 9" || string(words) != "last\n" {
			t.Errorf("it ended with %v and said %q", err, words)
		}
	})
}

func TestNothingOutlivesItsSandbox(t *testing.T) {
	each(t, func(t *testing.T, level labmesh.Sandbox) {
		for name, end := range map[string]func(*exec.Cmd) error{
			"killed": func(c *exec.Cmd) error { return c.Process.Kill() },
			"ended":  func(c *exec.Cmd) error { return nil },
		} {
			mark := fmt.Sprintf("%d.%d", 100+len(name), time.Now().UnixNano()%1e9)
			script := "(setsid env -i sleep " + mark + " >/dev/null 2>&1 &); (setsid sh -c 'sleep " + mark + " & wait' >/dev/null 2>&1 &); sleep 0.2; echo up >up"
			if name == "killed" {
				script += "; sleep " + mark
			}
			cmd, out, r := shut(t, box(t, ""), level, "/bin/sh", "sh", "-c", script)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			until(t, "it runs", func() bool { _, err := os.Stat(filepath.Join(r.work, "up")); return err == nil })
			if err := end(cmd); err != nil {
				t.Error(err)
			}
			if err := cmd.Wait(); (err == nil) != (name == "ended") {
				t.Error(name, err, out)
			}
			until(t, name+": nothing of it runs", func() bool { return !runs(mark) })
		}
	})
}

// runs reports whether a process has mark among its arguments.
func runs(mark string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range all {
		if text, err := os.ReadFile(f); err == nil && bytes.Contains(text, []byte("sleep\x00"+mark)) {
			return true
		}
	}
	return false
}

func TestWhatCannotBeRunIsSaid(t *testing.T) {
	each(t, func(t *testing.T, level labmesh.Sandbox) {
		script := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd, out, r := shut(t, box(t, ""), level, script, "script")
		err := cmd.Run()
		f, ok := sandbox.Fault(r.fault)
		if err == nil || !ok || !f.Program || !strings.Contains(f.Message, "no such file") {
			t.Errorf("%v, %+v, %s", err, f, out)
		}
	})
}

func TestBubblewrapProtectsFiles(t *testing.T) {
	t.Parallel()
	hidden := t.TempDir()
	if err := os.WriteFile(filepath.Join(hidden, "node.key"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(os.TempDir(), "labmesh-sandbox-test-outside")
	b := box(t, hidden)
	if _, absent := b.Probe(t.Context()); absent[labmesh.SandboxBubble] != "" {
		t.Skip(absent[labmesh.SandboxBubble])
	}
	cmd, out, r := shut(t, b, labmesh.SandboxBubble, "/bin/sh", "sh", "-c", `
		touch /etc/x /usr/x `+hidden+`/../x 2>/dev/null && echo wrote
		cat `+hidden+`/node.key 2>/dev/null && echo read
		touch mine "$TMPDIR/mine" `+outside+` && pwd; exit 0`)
	cmd.Env = append(os.Environ(), "TMPDIR="+r.tmp)
	if err := cmd.Run(); err != nil || strings.TrimSpace(out.String()) != r.work {
		t.Errorf("%v: %s", err, out)
	}
	for _, file := range []string{r.work + "/mine", r.tmp + "/mine", r.tmp + "/" + filepath.Base(outside)} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("it wrote to the /tmp of all")
	}
}

func TestWhatIsNotThereIsSaid(t *testing.T) {
	t.Parallel()
	have, absent := sandbox.Box{Self: []string{"/no/such/program"}}.Probe(t.Context())
	if len(have) > 0 || !strings.Contains(absent[labmesh.SandboxNoNetwork], "no such file") || absent[labmesh.SandboxBubble] != "bubblewrap is not installed" {
		t.Errorf("%v, %v", have, absent)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// BenchmarkTrue runs /bin/true in each sandbox, one after the other.
func BenchmarkTrue(b *testing.B) {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	bx := sandbox.New([]string{exe, asSandbox}, os.Environ())
	have, absent := bx.Probe(b.Context())
	b.Log(absent)
	for _, level := range have {
		b.Run(string(level), func(b *testing.B) {
			for b.Loop() {
				path, args, err := bx.Wrap(level, sandbox.Program{Path: "/bin/true", Args: []string{"true"}, Dir: "/", Fault: filepath.Join(b.TempDir(), "f")})
				if err != nil {
					b.Fatal(err)
				}
				if err := exec.Command(path, args[1:]...).Run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
