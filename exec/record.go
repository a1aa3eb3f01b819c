package exec

import (
	"sync"
	"time"

	"labmesh"
)

// Limits on recording test cases.
const (
	recordLinger   = 150 * time.Millisecond // how long word of a case waits for others
	recordBytesMax = 64 << 10               // of the cases in one command
	recordBack     = 64                     // reports looked at for a command that has room
)

// recorder is the Record of an attempt: it numbers the cases and queues them
// ahead of the attempt's end.
func (w *Worker) recorder(k key) func([]labmesh.TestCase) {
	var mu sync.Mutex
	from := 0
	return func(cases []labmesh.TestCase) {
		mu.Lock() // so that the queue has them in the order of their numbers
		defer mu.Unlock()
		for _, c := range cases {
			w.reports.addCase(labmesh.RecordTests{ID: k.task, Attempt: k.attempt, Worker: w.cfg.Worker, From: from}, c)
			from++
		}
	}
}

// addCase queues a test case: in the last command of its attempt that is still
// queued, if it has room, or in one of its own, which is cmd.
func (r *reporter) addCase(cmd labmesh.RecordTests, c labmesh.TestCase) {
	r.mu.Lock()
	for i := len(r.queue) - 1; i >= max(0, len(r.queue)-recordBack); i-- {
		last, ok := r.queue[i].(labmesh.RecordTests)
		if !ok || last.ID != cmd.ID || last.Attempt != cmd.Attempt {
			continue
		}
		if len(last.Cases) < labmesh.CasesMax && sizeOf(last)+sizeOfCase(&c) <= recordBytesMax {
			last.Cases = append(last.Cases, c)
			r.queue[i] = last
			r.mu.Unlock()
			return // it is due with the others
		}
		break
	}
	r.mu.Unlock()
	cmd.Cases = []labmesh.TestCase{c}
	r.add(cmd, recordLinger)
}

// sizeOfCase is about how many bytes a case takes in the log.
func sizeOfCase(c *labmesh.TestCase) int {
	return 128 + len(c.Suite) + len(c.File) + len(c.Name) + len(c.Params) + len(c.Message) + len(c.Log)
}
