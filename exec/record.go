package exec

import (
	"sync"
	"time"

	"labmesh"
)

// Limits on recording test cases and rows of benchmarks.
const (
	recordLinger   = 150 * time.Millisecond // how long word of one waits for others
	recordBytesMax = 64 << 10               // of those in one command
	recordBack     = 64                     // reports looked at for a command that has room
)

// recorder numbers what an attempt has to say while it runs, and queues it ahead
// of the attempt's end.
type recorder struct {
	w *Worker
	k key

	mu   sync.Mutex // so that the queue has them in the order of their numbers
	from int
}

// cases is the Record of the attempt.
func (r *recorder) cases(cases []labmesh.TestCase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range cases {
		one := labmesh.RecordTests{ID: r.k.task, Attempt: r.k.attempt, Worker: r.w.cfg.Worker, From: r.from, Cases: []labmesh.TestCase{c}}
		r.w.reports.record(one, func(last labmesh.Command) (labmesh.Command, bool) {
			l, ok := last.(labmesh.RecordTests)
			ok = ok && len(l.Cases) < labmesh.CasesMax
			l.Cases = append(l.Cases, c)
			return l, ok
		})
		r.from++
	}
}

// rows is the RecordRows of the attempt.
func (r *recorder) rows(rows []labmesh.BenchRow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		one := labmesh.RecordBench{ID: r.k.task, Attempt: r.k.attempt, Worker: r.w.cfg.Worker, From: r.from, Rows: []labmesh.BenchRow{row}}
		r.w.reports.record(one, func(last labmesh.Command) (labmesh.Command, bool) {
			l, ok := last.(labmesh.RecordBench)
			ok = ok && len(l.Rows) < labmesh.BenchRowsMax
			l.Rows = append(l.Rows, row)
			return l, ok
		})
		r.from++
	}
}

// record queues what an attempt has to say: added to the last command about the
// attempt that is still queued, if that has room, or as a command of its own.
func (r *reporter) record(one labmesh.Command, add func(last labmesh.Command) (labmesh.Command, bool)) {
	r.mu.Lock()
	for i := len(r.queue) - 1; i >= max(0, len(r.queue)-recordBack); i-- {
		if attemptOf(r.queue[i]) != attemptOf(one) {
			continue
		}
		if sizeOf(r.queue[i])+sizeOf(one) <= recordBytesMax {
			if more, ok := add(r.queue[i]); ok {
				r.queue[i] = more
				r.mu.Unlock()
				return // it is due with the others
			}
		}
		break
	}
	r.mu.Unlock()
	r.add(one, recordLinger)
}

// sizeOfCase is about how many bytes a case takes in the log.
func sizeOfCase(c *labmesh.TestCase) int {
	return 128 + len(c.Suite) + len(c.File) + len(c.Name) + len(c.Params) + len(c.Message) + len(c.Log)
}

// sizeOfRow is about how many bytes a row takes in the log.
func sizeOfRow(row *labmesh.BenchRow) int {
	size := 1536 + len(row.Env) + len(row.Reason) + len(row.Work.EngineWhy)
	for _, d := range row.Doubts {
		size += len(d) + 4
	}
	return size
}
