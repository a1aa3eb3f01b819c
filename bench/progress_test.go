package bench_test

import (
	"testing"

	"labmesh"
	"labmesh/bench"
)

func TestProgressIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]bench.Progress{
		"run 2/5 batch 4: 37/100, p50 12.3 ms":                   {Run: 2, Runs: 5, Batch: 4, N: 37, Of: 100, P50: 12.3},
		"run 1/10 b batch 16: 0/100":                             {Run: 1, Runs: 10, Arm: "b", Batch: 16, Of: 100},
		"run 1/1 batch 1: 120/100, p50 1.235e+06 ms, ok":         {Run: 1, Runs: 1, Batch: 1, N: 120, Of: 100, P50: 1235000, Status: labmesh.BenchOK},
		"run 1/1 batch 64: 3/100, p50 2 ms, oom_killed: no room": {Run: 1, Runs: 1, Batch: 64, N: 3, Of: 100, P50: 2, Status: labmesh.BenchOOMKilled, Reason: "no room"},
	} {
		if got := p.String(); got != want {
			t.Errorf("%+v is written %q, want %q", p, got, want)
		}
		if got, ok := bench.ParseProgress(want); !ok || got != p {
			t.Errorf("%q is read as %+v, want %+v", want, got, p)
		}
	}
	for _, line := range []string{"", "run 1/5", "quiet after 3 s", "run 1/5 batch 4: 1/2, p50 -1 ms", "run 1/5 batch 4: 1/2, p50 e ms"} {
		if p, ok := bench.ParseProgress(line); ok {
			t.Errorf("%q is read as %+v", line, p)
		}
	}
}

func FuzzParseProgress(f *testing.F) {
	f.Add("run 1/10 b batch 16: 3/100, p50 2.5 ms, error: why")
	f.Fuzz(func(t *testing.T, line string) {
		p, ok := bench.ParseProgress(line)
		if !ok {
			return
		}
		if again, ok := bench.ParseProgress(p.String()); !ok || again.Run != p.Run || again.Status != p.Status || again.Reason != p.Reason {
			t.Errorf("%q is %+v and then %+v", line, p, again)
		}
	})
}
