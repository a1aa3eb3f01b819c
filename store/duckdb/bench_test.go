package duckdb

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"labmesh"
	"labmesh/store"
	"labmesh/store/storetest"
)

// A finished task leaves four rows: the task, its attempt and two events.
const rowsPerTask = 4

func BenchmarkAppend(b *testing.B) {
	for _, keyed := range []bool{false, true} {
		for _, batch := range []int{1, 100, 10_000} {
			b.Run(fmt.Sprintf("keyed=%v/batch=%d", keyed, batch), func(b *testing.B) {
				db := open(b, Config{keyed: keyed})
				var m storetest.Mesh
				done := 0
				for b.Loop() {
					events := m.FinishBatch(batch)
					if err := db.Append(b.Context(), m.Index, events); err != nil {
						b.Fatal(err)
					}
					done += batch
				}
				report(b, done)
				b.ReportMetric(float64(resident())/(1<<20), "MB-rss")
			})
		}
	}
}

// BenchmarkTests writes a hundred commands full of test cases in one transaction,
// and asks the reports about a million.
func BenchmarkTests(b *testing.B) {
	db := open(b, Config{})
	var m storetest.Mesh
	cases := storetest.Cases(labmesh.CasesMax)
	b.Run("append", func(b *testing.B) {
		rows := 0
		for b.Loop() {
			var events []labmesh.Event
			for range 100 {
				events = append(events, m.Tests(cases...)...)
			}
			if err := db.Append(b.Context(), m.Index, events); err != nil {
				b.Fatal(err)
			}
			rows += 100 * len(cases)
		}
		b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	})
	for m.Index < 1000 {
		events := m.Tests(cases...)
		if err := db.Append(b.Context(), m.Index, events); err != nil {
			b.Fatal(err)
		}
	}
	for _, r := range reports() {
		b.Run(r.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := db.Query(b.Context(), store.Query{SQL: "FROM " + r.name, Live: live{index: m.Index}, Timeout: store.QueryTimeoutMax}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func report(b *testing.B, tasks int) {
	seconds := b.Elapsed().Seconds()
	b.ReportMetric(float64(tasks)/seconds, "tasks/s")
	b.ReportMetric(float64(rowsPerTask*tasks)/seconds, "rows/s")
}

func BenchmarkBehind(b *testing.B) {
	db := open(b, Config{})
	queue, err := store.NewBehind(db, store.BehindConfig{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- queue.Run(b.Context()) }()
	var m storetest.Mesh
	for b.Loop() { // an entry with one finished task each time
		_, events := m.Finish()
		if err := queue.Append(m.Index, events); err != nil {
			b.Fatal(err)
		}
	}
	if err := queue.Await(b.Context(), m.Index); err != nil {
		b.Fatal(err)
	}
	report(b, int(m.Index))
	b.ReportMetric(float64(m.Index)/float64(queue.Stats().Batches), "tasks/commit")
}

// filled is a ledger with n finished tasks.
func filled(b *testing.B, n int, keyed bool) (*DB, *storetest.Mesh) {
	db := open(b, Config{keyed: keyed})
	var m storetest.Mesh
	for done := 0; done < n; done += 1000 {
		events := m.FinishBatch(min(n, 1000))
		if err := db.Append(b.Context(), m.Index, events); err != nil {
			b.Fatal(err)
		}
	}
	return db, &m
}

func BenchmarkExportImport(b *testing.B) {
	const tasks = 50_000
	from, m := filled(b, tasks, false)
	var stream bytes.Buffer
	b.Run("export", func(b *testing.B) {
		n := 0
		for b.Loop() {
			stream.Reset()
			if _, err := from.Export(b.Context(), 0, m.Index, 0, &stream); err != nil {
				b.Fatal(err)
			}
			n += tasks
		}
		report(b, n)
		b.ReportMetric(float64(stream.Len())/(rowsPerTask*tasks), "B/row")
	})
	b.Run("import", func(b *testing.B) {
		n := 0
		for b.Loop() {
			b.StopTimer()
			to := open(b, Config{})
			if err := to.Require(b.Context(), m.Index); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if err := to.Import(b.Context(), bytes.NewReader(stream.Bytes()), m.Index); err != nil {
				b.Fatal(err)
			}
			n += tasks
			b.StopTimer()
			if err := to.Close(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		report(b, n)
	})
}

func BenchmarkLookup(b *testing.B) {
	for _, keyed := range []bool{false, true} {
		const tasks = 200_000
		db, _ := filled(b, tasks, keyed)
		b.Run(fmt.Sprintf("keyed=%v/task", keyed), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				id := labmesh.TaskID(fmt.Sprintf("01J%020d", 1+i*7919%tasks))
				if _, ok, err := db.Task(b.Context(), id); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
		b.Run(fmt.Sprintf("keyed=%v/key", keyed), func(b *testing.B) {
			for b.Loop() {
				if _, ok, err := db.FindKey(b.Context(), "", "no such key"); ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkQuery(b *testing.B) {
	db, m := filled(b, 100_000, false)
	l := live{index: m.Index}
	for seq := range uint64(100_000) {
		l.tasks = append(l.tasks, &labmesh.Task{ID: labmesh.TaskID(fmt.Sprint(seq)), Seq: seq, Phase: labmesh.Pending, Created: storetest.Epoch, Index: m.Index})
	}
	for name, sql := range map[string]string{
		"untouched": "SELECT 1",
		"events":    "SELECT type, count(*) FROM events GROUP BY ALL",
		"tasks":     "SELECT status, count(*) FROM distributed_tasks GROUP BY ALL",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := db.Query(b.Context(), store.Query{SQL: sql, Live: l}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
