package suite_test

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/suite"
)

func machines(overhead float64, speeds ...float64) (ws []*machine) {
	for i, s := range speeds {
		ws = append(ws, &machine{Worker: suite.Worker{ID: labmesh.WorkerID(fmt.Sprint("w", i)), Slots: 1}, speed: s, overhead: overhead, up: true})
	}
	return ws
}

// The suite of the benchmark, on three workers: with a history it ends within
// 1.15 of the ideal, interpreters started and all; without one too, and on unequal ones.
func TestTheSuiteOfTheBenchmarkEndsInTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		speeds  []float64
		history float64 // noise of it; below 0 there is none
		told    bool    // the speeds are known
		most    float64
	}{
		"equal workers, first run":          {[]float64{1, 1, 1}, -1, false, 1.15},
		"equal workers, exact history":      {[]float64{1, 1, 1}, 0, true, 1.05},
		"equal workers, noisy history":      {[]float64{1, 1, 1}, 0.3, false, 1.15},
		"unequal workers, first run":        {[]float64{1, 0.6, 0.35}, -1, false, 1.15},
		"unequal workers, known":            {[]float64{1, 0.6, 0.35}, 0, true, 1.05},
		"unequal workers, speeds not known": {[]float64{1, 0.6, 0.35}, 0, false, 1.15},
		"six workers, noisy":                {[]float64{1, 1, 1, 1, 0.6, 0.5}, 0.3, true, 1.25},
	} {
		t.Run(name, func(t *testing.T) {
			list, truths := issueSuite(20, 400, 60)
			for i := range list {
				if c.history >= 0 {
					list[i].Seconds = truths[list[i].ID].seconds * math.Exp(c.history*math.Sin(float64(i*i)))
				}
			}
			m := &model{q: suite.New(list, suite.Options{}), cases: truths, workers: machines(0.35, c.speeds...), latency: 0.03}
			if c.told {
				for _, w := range m.workers {
					w.Worker.Speed = w.speed
				}
			}
			if err := m.run(); err != nil {
				t.Fatal(err)
			}
			ratio := m.now / m.ideal()
			t.Logf("%.2f s, ideal %.2f s, ratio %.3f, %d chunks", m.now, m.ideal(), ratio, len(m.chunks))
			if ratio > c.most {
				t.Errorf("it took %.3f of the ideal, want at most %g", ratio, c.most)
			}
		})
	}
}

// Whatever is lost, crashes or fails: in the end each case has exactly one
// verdict, and it is the right one.
func TestEveryCaseHasExactlyOneVerdict(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		retries := rapid.IntRange(0, 2).Draw(t, "retries")
		var list []suite.Case
		truths := map[string]truth{}
		for i := range rapid.IntRange(1, 120).Draw(t, "cases") {
			c := suite.Case{File: fmt.Sprint("f", rapid.IntRange(0, 6).Draw(t, "file")), Name: fmt.Sprint("t", i)}
			c.ID = c.File + "::" + c.Name
			tr := truth{seconds: rapid.Float64Range(0, 3).Draw(t, "seconds")}
			switch rapid.IntRange(0, 12).Draw(t, "fate") {
			case 0:
				tr.fails = rapid.IntRange(1, 3).Draw(t, "fails")
			case 1:
				tr.crashes = true
			case 2:
				tr.kills = rapid.IntRange(0, 3).Draw(t, "kills") == 0
			}
			if rapid.Bool().Draw(t, "known") {
				c.Seconds = tr.seconds * rapid.Float64Range(0.3, 3).Draw(t, "noise")
			}
			list, truths[c.ID] = append(list, c), tr
		}
		m := &model{
			q: suite.New(list, suite.Options{Retries: retries, Parallel: rapid.IntRange(0, 3).Draw(t, "parallel")}), cases: truths,
			latency: rapid.Float64Range(0, 0.5).Draw(t, "latency"), maxSecs: 5000,
		}
		for i := range rapid.IntRange(1, 4).Draw(t, "workers") {
			m.workers = append(m.workers, &machine{
				Worker: suite.Worker{ID: labmesh.WorkerID(fmt.Sprint("w", i)), Slots: rapid.IntRange(1, 3).Draw(t, "slots")},
				speed:  rapid.Float64Range(0.3, 2).Draw(t, "speed"), overhead: rapid.Float64Range(0, 1).Draw(t, "overhead"), up: true,
			})
		}
		lost := map[string]bool{} // may have been under way when a worker was lost
		for range rapid.IntRange(0, 4).Draw(t, "losses") {
			i, back := rapid.IntRange(0, len(m.workers)-1).Draw(t, "lost"), rapid.Float64Range(0, 20).Draw(t, "back")
			m.in(rapid.Float64Range(0, 60).Draw(t, "when"), func() {
				for _, r := range m.workers[i].busy {
					for _, c := range r.Cases[r.done:] {
						lost[c.ID] = true
					}
				}
				m.lose(i, back)
			})
		}
		if err := m.run(); err != nil {
			t.Fatal(err)
		}
		rs := m.q.Results()
		if len(rs) != len(list) {
			t.Fatalf("%d results of %d cases", len(rs), len(list))
		}
		for i, r := range rs {
			tr := truths[r.Case.ID]
			want, flaky := labmesh.TestPassed, tr.fails > 0 || tr.crashes
			switch {
			case tr.kills:
				want, flaky = labmesh.TestCrashed, false
			case tr.fails > retries:
				want, flaky = labmesh.TestFailed, false
			case tr.crashes && retries == 0:
				want, flaky = labmesh.TestCrashed, false
			}
			if lost[r.Case.ID] && r.Verdict == labmesh.TestCrashed {
				continue // lost three times just when it was its turn
			}
			if r.Case.ID != list[i].ID || r.Verdict != want || r.Flaky != flaky {
				t.Fatalf("%s: verdict %q flaky %v, want %q %v (%+v)", r.Case.ID, r.Verdict, r.Flaky, want, flaky, tr)
			}
			if got := m.runs[r.Case.ID]; !tr.kills && got != len(r.Runs) {
				t.Fatalf("%s ran to its end %d times and has %d runs on record", r.Case.ID, got, len(r.Runs))
			}
		}
		if n := m.q.Counts(); n.Total != len(list) || n.NotRun != 0 || n.Passed+n.Failed+n.Errors+n.Crashed+n.Timeouts+n.Skipped != n.Total {
			t.Fatalf("counts %+v of %d cases", n, len(list))
		}
	})
}

// On equal workers: when the chunk begins that ends last, no slot has been idle while a
// case waited, but for starting interpreters and for word to travel. So the end is at most the ideal, one
// slot's starts, and that chunk later. Where workers are unequal a slow slot may stay idle for
// cases that a fast one ends sooner: that is bounded by what many random suites showed, not by a proof.
func TestAllFinishTogether(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var list []suite.Case
		truths := map[string]truth{}
		longest, work := 0.0, 0.0
		for i := range rapid.IntRange(1, 300).Draw(t, "cases") {
			c := suite.Case{File: fmt.Sprint("f", rapid.IntRange(0, 12).Draw(t, "file")), Name: fmt.Sprint("t", i)}
			c.ID = c.File + "::" + c.Name
			c.Seconds = math.Exp(rapid.Float64Range(-5, 2).Draw(t, "log seconds"))
			longest, work = max(longest, c.Seconds), work+c.Seconds
			list, truths[c.ID] = append(list, c), truth{seconds: c.Seconds}
		}
		equal := rapid.Bool().Draw(t, "equal")
		m := &model{q: suite.New(list, suite.Options{}), cases: truths, latency: 0.02}
		speed, fastest := 0.0, 0.0
		for i := range rapid.IntRange(1, 6).Draw(t, "workers") {
			s := 1.0
			if !equal {
				s = rapid.Float64Range(0.25, 1.5).Draw(t, "speed")
			}
			w := &machine{Worker: suite.Worker{ID: labmesh.WorkerID(fmt.Sprint("w", i)), Slots: rapid.IntRange(1, 2).Draw(t, "slots"), Speed: s}, speed: s, overhead: 0.4, up: true}
			speed, fastest = speed+s*float64(w.Slots), max(fastest, s)
			m.workers = append(m.workers, w)
		}
		if err := m.run(); err != nil {
			t.Fatal(err)
		}
		starts, most := map[labmesh.WorkerID]int{}, 0
		for _, r := range m.chunks {
			starts[r.at.ID]++
			most = max(most, starts[r.at.ID])
		}
		tail := m.last.Seconds
		bound := work/speed + float64(most)*(0.4+2*0.02+0.1) + tail
		if !equal {
			bound += 2 * longest / fastest
		}
		if m.now > bound {
			t.Fatalf("it took %.2f s, over the bound of %.2f s (ideal %.2f s, %d starts, last chunk %.2f s)", m.now, bound, work/speed, most, tail)
		}
	})
}

// BenchmarkNext is a whole suite of 20,000 cases: what deciding takes, for each case.
func BenchmarkNext(b *testing.B) {
	for range b.N {
		list, truths := issueSuite(500, 20_000, 3000)
		for i := range list {
			list[i].Seconds = truths[list[i].ID].seconds
		}
		m := &model{q: suite.New(list, suite.Options{}), cases: truths, workers: machines(0.4, 1, 1, 1, 1, 0.7, 0.7, 0.5, 0.5), latency: 0.03}
		if err := m.run(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/20_000, "µs/case")
		b.ReportMetric(m.now/m.ideal(), "/ideal")
	}
}
