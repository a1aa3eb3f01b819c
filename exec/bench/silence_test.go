package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	benches "labmesh/bench"
	"labmesh/exec"
	"labmesh/exec/bench"
	"labmesh/exec/output"
	"labmesh/exec/process"
)

// script is a launcher of runners in virtual time: each says its lines, a pause
// apart, and then what it likes until it is ended.
type script struct {
	pause time.Duration
	lines []string
	then  func(n int) string // "" to say nothing any more

	began time.Time
	lived []time.Duration // how long each process did
	why   []error
}

func (s *script) Launch(ctx context.Context, _ exec.Attempt, p bench.Program) (process.Exit, error) {
	began := time.Now()
	defer func() { s.lived, s.why = append(s.lived, time.Since(began)), append(s.why, context.Cause(ctx)) }()
	for n := 1; ; n++ {
		line := ""
		if n <= len(s.lines) {
			line = s.lines[n-1]
		} else if s.then != nil {
			line = s.then(n)
		}
		if line == "" {
			<-ctx.Done()
			return process.Exit{Code: -1, Stopped: true}, nil
		}
		if line == "exit" {
			return process.Exit{}, nil
		}
		_, _ = fmt.Fprintf(p.Stdout, `{"v":1,"seq":%d,%s}`+"\n", n, line)
		select {
		case <-time.After(s.pause):
		case <-ctx.Done():
			return process.Exit{Code: -1, Stopped: true}, nil
		}
	}
}

func TestPatienceWithARunnerHasAnEnd(t *testing.T) {
	t.Parallel()
	const (
		hello = `"event":"hello","runner":"r"`
		model = `"event":"model","device_class":"cpu"`
		start = `"event":"batch_start","batch":1`
		first = `"event":"samples","batch":1,"i0":0,"ms":[[%d]]`
		end   = `"event":"batch_end","batch":1,"status":"ok","n":1`
	)
	same := func(line string) func(int) string { return func(int) string { return line } }
	times := func(n int) string { return fmt.Sprintf(`"event":"samples","batch":1,"i0":%d,"ms":[[900]]`, n-4) }
	for name, c := range map[string]struct {
		script script
		config string
		least  time.Duration // that a process lives
		most   time.Duration
		rows   string
		cause  labmesh.Cause
	}{
		"never says a word":              {script{}, "", 3 * time.Minute, 4 * time.Minute, "", labmesh.CauseTimeout},
		"and compiles":                   {script{}, `,"compile":true`, 13 * time.Minute, 14 * time.Minute, "", labmesh.CauseTimeout},
		"and has as long as is said":     {script{}, `,"silence_seconds":7`, 7 * time.Second, 8 * time.Second, "", labmesh.CauseTimeout},
		"hangs before its first times":   {script{lines: []string{hello, model, start}}, "", 3 * time.Minute, 4 * time.Minute, "1:timeout", labmesh.CauseTimeout},
		"hangs among its times":          {script{lines: []string{hello, model, start, fmt.Sprintf(first, 5)}}, "", 30 * time.Second, 31 * time.Second, "1:timeout", labmesh.CauseTimeout},
		"hangs, and is slow":             {script{lines: []string{hello, model, start, fmt.Sprintf(first, 60_000)}}, "", 20 * time.Minute, 21 * time.Minute, "1:timeout", labmesh.CauseTimeout},
		"says the same for ever":         {script{pause: time.Second, lines: []string{hello}, then: same(hello)}, "", 5 * time.Minute, 6 * time.Minute, "", labmesh.CauseTimeout},
		"measures for ever":              {script{pause: time.Second, lines: []string{hello, model, start}, then: times}, "", 5 * time.Minute, 7 * time.Minute, "1:timeout", labmesh.CauseTimeout},
		"is done and stays":              {script{lines: []string{hello, model, start, fmt.Sprintf(first, 5), end, `"event":"done"`}}, "", 10 * time.Second, 11 * time.Second, "1:ok", ""},
		"gives up and stays":             {script{lines: []string{hello, `"event":"fatal","code":"unknown_model"`}}, "", 10 * time.Second, 11 * time.Second, "", labmesh.CauseConfig},
		"measures what nobody knows":     {script{lines: []string{start, fmt.Sprintf(first, 5), end, "exit"}}, "", 0, time.Second, "1:ok", ""},
		"tells of two models":            {script{lines: []string{hello, model, start, model, fmt.Sprintf(first, 5), end, "exit"}}, "", 0, time.Second, "1:ok", ""},
		"forgets to end a batch size":    {script{lines: []string{hello, model, start, "exit"}}, "", 0, time.Second, "1:error", labmesh.CauseExit},
		"measures what nobody asked for": {script{lines: []string{hello, model, `"event":"batch_start","batch":3`, start, fmt.Sprintf(first, 5), end, "exit"}}, "", 0, time.Second, "1:ok", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				var rows []labmesh.BenchRow
				s := c.script
				a := exec.Attempt{Number: 1, Dir: dir, Output: output.New(dir), RecordRows: func(r []labmesh.BenchRow) { rows = append(rows, r...) }}
				defer a.Output.Close()
				a.Task.Spec.Config = json.RawMessage(`{"model":"m","runner":["r"],"repeats":1` + c.config + `}`)
				o, err := bench.Run(t.Context(), bench.Host{Launcher: &s, Machine: quiet{}}, a)
				if err != nil || o.Cause != c.cause || statuses(rows) != c.rows {
					t.Fatalf("%v %s: %s, %v; rows %s", o.OK, o.Cause, o.Error, err, statuses(rows))
				}
				for _, d := range s.lived {
					if d < c.least || d > c.most {
						t.Errorf("a process lived for %s", d)
					}
				}
				if flagged := len(rows) > 0 && strings.Contains(fmt.Sprint(rows[0].Flags), string(labmesh.FlagProtocol)); flagged != (name == "measures what nobody knows" || name == "tells of two models") {
					t.Errorf("flags %v", rows[0].Flags)
				}
			})
		})
	}
}

func TestConfigBoundsTheWaitForQuiet(t *testing.T) {
	t.Parallel()
	for config, want := range map[string][]time.Duration{
		`"quiet_seconds":-1`: nil, `"quiet_seconds":2.5`: {2500 * time.Millisecond, 2500 * time.Millisecond, 2500 * time.Millisecond}, `"iterations":1`: {time.Minute, 20 * time.Second, 3 * time.Second},
	} {
		m, dir := &gate{}, t.TempDir()
		a := exec.Attempt{Number: 1, Dir: dir, Output: output.New(dir)}
		a.Task.Spec.Config = json.RawMessage(`{"model":"m","runner":["r"],"repeats":3,` + config + `}`)
		s := &script{lines: []string{`"event":"hello"`, `"event":"model"`, `"event":"batch_start","batch":1`, `"event":"samples","batch":1,"ms":[[1]]`, `"event":"batch_end","batch":1,"status":"ok","n":1`, "exit"}}
		if o, err := bench.Run(t.Context(), bench.Host{Launcher: s, Machine: m}, a); err != nil || !o.OK || !slices.Equal(m.asked, want) {
			t.Errorf("%s: waits for %s; %s, %v", config, m.asked, o.Error, err)
		}
		a.Output.Close()
	}
}

// gate is a machine that notes how long it may wait, and waits for 40 s at most.
type gate struct {
	quiet
	asked []time.Duration
}

func (g *gate) Wait(_ context.Context, _ benches.Device, most time.Duration) benches.Quiet {
	g.asked = append(g.asked, most)
	return benches.Quiet{WaitedS: min(most, 40*time.Second).Seconds(), Reasons: []string{"it is busy"}}
}
