package runner_test

import (
	"fmt"
	"strings"
	"testing"

	"labmesh"
	"labmesh/exec/cgroup"
	"labmesh/exec/process"
)

// holds reports whether this machine can hold programs to limits of a controller.
func holds(t *testing.T, controller string) bool {
	t.Helper()
	h, err := process.Open(t.Context(), process.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	_, absent := h.Holds()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if why := absent[controller]; why != "" {
		t.Log(why)
	}
	return absent[controller] == ""
}

func TestWhoTakesTooMuchMemoryEndsWithTheCauseOOM(t *testing.T) {
	t.Parallel()
	if !holds(t, cgroup.Memory) {
		t.Skip("memory cannot be held here")
	}
	b := newBench(t)
	for _, script := range []string{
		`x=$(head -c 90000000 /dev/zero | tr '\\0' x)`,
		`/bin/sh -c \"x=\\$(head -c 90000000 /dev/zero | tr '\\\\0' x)\"; exit $?`, // a child of it
	} {
		spec := custom(fmt.Sprintf(`{"name":"%s","shell":true}`, script))
		spec.Limits = &labmesh.Limits{MemoryGB: 32.0 / 1024}
		o, _ := b.run(t, spec)
		if o.Cause != labmesh.CauseOOM || !strings.Contains(o.Error, "limit of 32 MiB") || !strings.Contains(o.Error, "peak") {
			t.Errorf("%s: %+v", script, o)
		}
	}
	spec := custom(`{"name":"kill -KILL $$","shell":true}`)
	spec.Limits = &labmesh.Limits{MemoryGB: 32.0 / 1024}
	if o, _ := b.run(t, spec); o.Cause != labmesh.CauseSignal {
		t.Errorf("killed by itself: %+v", o)
	}
}

func TestUmaskAndDirAreAsAsked(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	o, r := b.run(t, custom(`{"name":"umask; pwd; echo $0 $1","args":["one"],"shell":true,"umask":"027","dir":"/"}`))
	if !o.OK || r.Stdout != "0027\n/\nsh one\n" {
		t.Errorf("%+v %q", o, r.Stdout)
	}
	for _, config := range []string{`{"name":"true","umask":"9"}`, `{"name":"true","dir":"../.."}`, `{"name":"true","dir":"none"}`} {
		if o, _ := b.run(t, custom(config)); o.Cause != labmesh.CauseConfig {
			t.Errorf("%s: %+v", config, o)
		}
	}
}

func TestTasksRunInTheSandboxTheyAskFor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, absent := box(t).Probe(t.Context())
	for _, level := range labmesh.Sandboxes() {
		script := `test $(ls -d /proc/[0-9]* | wc -l) -lt 9 && grep -c : /proc/net/dev && pwd >here && cat here && test \"$LABMESH_TASK_ID\" && echo x >$TMPDIR/x && exit 7`
		spec := custom(`{"name":"` + script + `","shell":true,"umask":"077"}`)
		spec.Requirements.Sandbox = level
		o, r := b.run(t, spec)
		switch {
		case absent[level] != "":
			if o.Cause != labmesh.CauseDependency || !o.Cause.Infra() {
				t.Errorf("%s cannot be made (%s): %+v", level, absent[level], o)
			}
		case o.Cause != labmesh.CauseExit || r.ExitCode != 7 || !strings.HasPrefix(r.Stdout, "1\n/"):
			t.Errorf("%s: %+v %q %q", level, o, r.Stdout, r.Stderr)
		}
		if absent[level] != "" {
			continue
		}
		spec = custom(`{"name":"kill -TERM $$","shell":true}`)
		spec.Requirements.Sandbox = level
		if o, r := b.run(t, spec); o.Cause != labmesh.CauseSignal || r.Signal != "SIGTERM" {
			t.Errorf("%s: %+v", level, o)
		}
		spec = custom(`{"name":"sleep 100"  ,"shell":true}`)
		spec.Requirements.Sandbox, spec.TimeoutSeconds = level, 0.5
		if o, _ := b.run(t, spec); o.Cause != labmesh.CauseTimeout {
			t.Errorf("%s: %+v", level, o)
		}
	}
}
