package exec_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/exectest"
	"labmesh/exec/output"
)

// blab is a runner that tells what it was given in every way that it can.
type blab struct{}

func (blab) Run(_ context.Context, a exec.Attempt) labmesh.Outcome {
	var config string
	_ = json.Unmarshal(a.Task.Spec.Config, &config)
	if config == "panic" {
		panic("with " + a.Secrets["TOKEN"])
	}
	all := fmt.Sprint(a.Secrets)
	a.Output.Write(output.Stdout, []byte("it is hun"))
	time.Sleep(time.Millisecond)
	a.Output.Write(output.Stdout, []byte("ter22\n"))
	a.Output.Write(output.Stderr, []byte(all))
	a.Record([]labmesh.TestCase{{Name: "test_it[hunter22]", Params: "hunter22", Message: "got hunter22", Verdict: labmesh.TestFailed}})
	a.RecordRows([]labmesh.BenchRow{{Run: "r", Repeat: 2, Reason: "hunter22", Work: labmesh.BenchWork{DeviceName: "hunter22"}, Env: json.RawMessage(`{"k":"hunter22"}`)}})
	result, _ := json.Marshal(map[string]any{"stdout": a.Output.Excerpt(output.Stdout).Text, "secrets": a.Secrets})
	return labmesh.Outcome{OK: config == "good", Error: "it said " + all, Result: result, Cause: labmesh.CauseExit}
}

func TestSecretsReachWhoAsksAndNobodyElse(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk := &exectest.Desk{}
		values := map[string]string{"TOKEN": "hunter22", "OTHER": "0ther-value"}
		w, err := exec.Open(t.Context(), exec.Config{Worker: "w", Dir: dir, Slots: 4, Desk: desk, Floor: 1,
			Runners: map[labmesh.Kind]exec.Runner{labmesh.Custom: blab{}},
			Secrets: func(name string) (string, bool) { v, ok := values[name]; return v, ok }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		put := func(id, config string, secrets ...string) labmesh.Outcome {
			t.Helper()
			desk.Put(labmesh.Task{ID: labmesh.TaskID(id), Attempt: 1, Phase: labmesh.Assigned,
				Spec: labmesh.Spec{Kind: labmesh.Custom, Config: json.RawMessage(`"` + config + `"`), Secrets: secrets}})
			time.Sleep(time.Minute)
			synctest.Wait()
			o, ok := desk.Outcome(labmesh.TaskID(id))
			if !ok {
				t.Fatalf("%s did not end", id)
			}
			return o
		}
		if o := put("none", "good"); string(o.Result) != `{"secrets":null,"stdout":"it is hunter22\n"}` || !o.OK {
			t.Errorf("who asks for nothing: %s", o.Result)
		}
		const hidden = "[secret TOKEN]"
		if o := put("one", "bad", "TOKEN"); o.Error != "it said map[TOKEN:"+hidden+"]" || string(o.Result) != `{"secrets":{"TOKEN":"`+hidden+`"},"stdout":"it is `+hidden+`\n"}` {
			t.Errorf("who asks for one: %q %s", o.Error, o.Result)
		}
		if c := desk.Cases("one"); len(c) != 1 || c[0].Name != "test_it["+hidden+"]" || c[0].Params != hidden || c[0].Message != "got "+hidden {
			t.Errorf("its test cases: %+v", c)
		}
		if r := desk.Rows("one"); len(r) != 1 || r[0].Reason != hidden || r[0].Work.DeviceName != hidden || string(r[0].Env) != `{"k":"`+hidden+`"}` || r[0].Repeat != 2 {
			t.Errorf("its rows: %+v", r)
		}
		if o := put("panics", "panic", "TOKEN", "OTHER"); !strings.Contains(o.Error, "with "+hidden) {
			t.Errorf("a runner that panics: %+v", o)
		}
		o := put("gone", "good", "TOKEN", "DROPPED")
		if o.OK || o.Cause != labmesh.CauseConfig || !strings.Contains(o.Error, "no secret DROPPED any more") {
			t.Errorf("a secret that was dropped: %+v", o)
		}
		cancel()
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
		err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if data, readErr := os.ReadFile(path); readErr == nil && strings.Contains(string(data), "hunter22") && !strings.Contains(path, "none") {
				t.Errorf("%s holds the value", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
