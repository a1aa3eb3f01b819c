package engines_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"labmesh/bench"
	"labmesh/exec/bench/engines"
)

// python writes a program that answers as an interpreter would, and counts how
// often it is asked for each engine. The answers are bash; $engine is what it is asked for.
func python(t *testing.T, answers string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "python")
	script := "#!/bin/bash\nengine=$3; echo x >>\"$0-$engine\"\n" + answers + "\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// has answers that the engine is there, with these devices.
func has(engine, version, watch string, classes ...string) string {
	var devices []string
	for _, c := range classes {
		devices = append(devices, fmt.Sprintf(`{"class":%q,"index":0}`, c))
	}
	return fmt.Sprintf(`[ $engine = %s ] && echo '{"v":1,"seq":1,"t":0.1,"event":"hello","runner":"%[1]s","runner_version":%q,"devices":[%s],"env":{"watch":[%q],"transformers":"4.2","absent":{"rocm":"built without"}}}' && exit 0`,
		engine, version, strings.Join(devices, ","), watch)
}

const hasNone = `echo '{"v":1,"seq":1,"t":0,"event":"fatal","code":"no_engine","message":"'$0' has no usable '$engine'"}'; exit 1`

func finder(dir string, pythons ...string) *engines.Finder {
	return engines.New(engines.Config{
		Dir: dir, Pythons: func() []string { return pythons }, Env: []string{"PATH=/usr/bin:/bin"}, Limit: 2 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
}

func asked(python, engine string) int {
	data, _ := os.ReadFile(python + "-" + engine)
	return strings.Count(string(data), "x")
}

func of(t *testing.T, found []engines.Found, name string) engines.Found {
	t.Helper()
	i := slices.IndexFunc(found, func(f engines.Found) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("%s is not in %+v", name, found)
	}
	return found[i]
}

func TestAnInterpreterThatDoesNotWorkHasAReason(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ answers, want string }{
		"without the engine": {hasNone, "no usable torch"},
		"one that hangs":     {"sleep 100 & sleep 100", "torch did not answer in 2s"},
		"one that crashes":   {"kill -SEGV $$", "segmentation fault"},
		"garbage":            {`echo '{"v":1'; echo not json; head -c 3000000 /dev/urandom`, "no answer"},
		"another protocol":   {`echo '{"v":9,"event":"hello","devices":[{"class":"cpu"}]}'`, "no answer"},
		"no devices":         {`echo '{"v":1,"event":"hello"}'`, "no answer"},
		"an error":           {"echo first >&2; echo 'ImportError: libcudart.so.11' >&2; exit 3", "exit code 3 and no answer: ImportError: libcudart.so.11"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := of(t, finder(t.TempDir(), python(t, c.answers)).Find(t.Context()), bench.EngineTorch)
			if !strings.Contains(f.Reason, c.want) || f.Command != nil || len(f.Devices) > 0 {
				t.Errorf("found %+v, want the reason %q", f, c.want)
			}
		})
	}
}

func TestTheFirstInterpreterThatWorksIsTaken(t *testing.T) {
	t.Parallel()
	broken := python(t, hasNone)
	cpu := python(t, has("torch", "1.13.0", "/", "cpu")+"\n"+hasNone)
	same := python(t, has("torch", "2.0.0", "/", "cpu")+"\n"+hasNone)
	gpu := python(t, has("torch", "2.1.0", "/", "cpu", "cuda")+"\n"+has("onnxruntime", "1.20", "/", "cpu"))
	found := finder(t.TempDir(), broken, cpu, same, gpu).Find(t.Context())
	var got []string
	for _, f := range found {
		got = append(got, f.Name+" "+f.Version+" "+f.Reason)
	}
	// The third adds nothing to the second, the fourth a class of device.
	if want := []string{"torch 1.13.0 ", "torch 2.1.0 ", "onnxruntime 1.20 "}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if f := found[0]; f.Path != cpu || f.Command[0] != cpu || f.Command[len(f.Command)-1] != "torch" || f.Absent["rocm"] == "" {
		t.Errorf("found %+v", f)
	}
	tools := engines.Tools(found)
	if tools["torch"] != "1.13.0" || tools["onnxruntime"] != "1.20" || tools["transformers"] != "4.2" || len(tools) != 3 {
		t.Errorf("tools %v", tools)
	}
}

func TestAnswersAreRememberedUntilSomethingChanges(t *testing.T) {
	t.Parallel()
	dir, packages := t.TempDir(), t.TempDir()
	p := python(t, has("torch", "2", packages, "cpu")+"\n"+hasNone)
	if got := finder(dir, p).Remembered(); len(got) != 0 {
		t.Fatalf("remembered at first: %+v", got)
	}
	find := func(f *engines.Finder) {
		t.Helper()
		if e := of(t, f.Find(t.Context()), "torch"); e.Version != "2" {
			t.Fatalf("found %+v", e)
		}
	}
	want := func(n int) {
		t.Helper()
		if got := asked(p, "torch"); got != n {
			t.Errorf("asked %d times, want %d", got, n)
		}
	}
	first := finder(dir, p)
	find(first)
	find(first)
	want(1)
	second := finder(dir, p) // a later process
	if e := of(t, second.Remembered(), "torch"); len(e.Devices) != 1 {
		t.Errorf("remembered %+v", e)
	}
	find(second)
	want(1)
	if err := os.Chtimes(packages, time.Time{}, time.Now().Add(time.Hour)); err != nil { // something was installed
		t.Fatal(err)
	}
	if slices.ContainsFunc(second.Remembered(), func(f engines.Found) bool { return f.Name == "torch" }) {
		t.Error("remembered what has changed")
	}
	find(second)
	want(2)
	second.Ask(t.Context())
	want(3)
	if err := os.WriteFile(filepath.Join(dir, "engines.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	find(finder(dir, p))
	want(4)
}

func TestAProbeEndsWithItsTree(t *testing.T) {
	t.Parallel()
	pid := filepath.Join(t.TempDir(), "pid")
	p := python(t, "sleep 1000 & echo $! >"+pid+"; wait")
	finder(t.TempDir(), p).Find(t.Context())
	data, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // it has been killed, which takes its time
		status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(data)) + "/status")
		if err != nil || strings.Contains(string(status), "zombie") || strings.Contains(string(status), "dead") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("its child lives on:\n%s", status)
		}
	}
}

func TestACancelledProbeIsNotRemembered(t *testing.T) {
	t.Parallel()
	p := python(t, has("torch", "2", "/", "cpu")+"\n"+hasNone)
	f := finder(t.TempDir(), p)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if got := f.Find(over); len(got) != 0 {
		t.Errorf("found %+v", got)
	}
	if e := of(t, f.Find(t.Context()), "torch"); e.Reason != "" {
		t.Errorf("found %+v", e)
	}
}

func TestThisMachine(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/usr/bin/python3"); err != nil {
		t.Skip("there is no /usr/bin/python3")
	}
	f := engines.New(engines.Config{
		Dir: t.TempDir(), Pythons: func() []string { return []string{"/usr/bin/python3"} }, Env: os.Environ(), Limit: time.Minute, Logger: slog.New(slog.DiscardHandler),
	})
	for _, e := range f.Find(t.Context()) {
		if (e.Reason == "") != (len(e.Devices) > 0) || e.Reason == "" && (e.Version == "" || len(e.Command) == 0) {
			t.Errorf("%+v", e)
		}
		if e.Reason != "" && !strings.Contains(e.Reason, "no usable "+e.Name) && !strings.Contains(e.Reason, "needs 3.8") {
			t.Errorf("the reason is %q", e.Reason)
		}
		t.Logf("%s %s: %v %s", e.Name, e.Version, e.Devices, e.Reason)
	}
}
