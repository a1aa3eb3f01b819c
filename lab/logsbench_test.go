package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"testing"
	"time"

	"labmesh"
	"labmesh/client"
	"labmesh/lab"
)

const (
	printRounds  = 7
	printSeconds = 4
	bigOutput    = 1 << 30
)

// printer prints 10 MB/s for some seconds, in lines of 100 bytes, a hundred
// times a second, and then says on stderr what it came to, in MB/s; and then the
// same amount as fast as it can.
const printer = `
import sys, time
out, chunk, seconds = sys.stdout.buffer, (b"x" * 99 + b"\n") * 1000, int(sys.argv[1])
def go(pace):
    began = time.monotonic()
    for i in range(100 * seconds):
        out.write(chunk)
        out.flush()
        wait = began + (i + 1) * pace - time.monotonic()
        if wait > 0:
            time.sleep(wait)
    return 10 * seconds / (time.monotonic() - began)
print(go(0.01), go(0), file=sys.stderr)
`

// BenchmarkFollowed is what following costs a task that prints: its rate when
// somebody follows it on another node, of its rate when nobody does, in turns.
func BenchmarkFollowed(b *testing.B) {
	for b.Loop() {
		m := start(b, lab.Config{Nodes: 3, Slots: 1})
		var rates, fast [2][]float64
		for round := range 2 * printRounds {
			followed := (round + round/2) % 2 // in turns, and each as often the first of a pair
			paced, full := printed(b, m, followed == 1)
			rates[followed], fast[followed] = append(rates[followed], paced), append(fast[followed], full)
		}
		b.ReportMetric(middle(rates[0]), "alone-MB/s")
		b.ReportMetric(middle(rates[1]), "followed-MB/s")
		b.ReportMetric(middle(rates[1])/middle(rates[0]), "followed-of-alone")
		b.ReportMetric(middle(fast[0]), "flat-out-alone-MB/s")
		b.ReportMetric(middle(fast[1])/middle(fast[0]), "flat-out-followed-of-alone")
		busy(b)
	}
}

func middle(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// printed runs the printer on one node and says how fast it was, paced and flat
// out, while somebody on another node follows it or nobody does.
func printed(b *testing.B, m *lab.Mesh, followed bool) (paced, full float64) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	spec := on(m.Nodes[1], program("python3", "-c", printer, strconv.Itoa(printSeconds)))
	spec.Name = "printer"
	id := submit(b, m.Nodes[0], spec)[0]
	done := make(chan int64, 1)
	if followed {
		r, err := m.Nodes[2].Client().Logs(ctx, id, client.LogQuery{Stream: client.Stdout, Follow: true})
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			defer r.Close()
			n, _ := io.Copy(io.Discard, r)
			done <- n
		}()
	}
	if err := m.Nodes[0].Client().Wait(within(b, 120*time.Second), []labmesh.TaskID{id}, nothing); err != nil {
		b.Fatal(err)
	}
	if followed {
		select {
		case n := <-done:
			if least := int64(printSeconds * 10_000_000); n < least {
				b.Errorf("the follower had %d bytes, less than the %d that were printed at 10 MB/s", n, least)
			}
		case <-time.After(30 * time.Second):
			b.Error("the following has not ended")
		}
	}
	var result struct {
		Stderr string `json:"stderr"`
	}
	d := task(b, m.Nodes[0], id)
	if err := json.Unmarshal(d.Result, &result); err != nil {
		b.Fatalf("%s, %s: %v", d.Status, d.Error, err)
	}
	if _, err := fmt.Sscan(result.Stderr, &paced, &full); err != nil {
		b.Fatalf("%q: %v", result.Stderr, err)
	}
	return paced, full
}

// BenchmarkGigabyte is what one gigabyte of output costs the node of the worker,
// and the one that has the copy, in memory and on disk.
func BenchmarkGigabyte(b *testing.B) {
	for b.Loop() {
		m := start(b, lab.Config{Nodes: 2, Slots: 1})
		var before []lab.Usage
		for _, n := range m.Nodes {
			before = append(before, usage(b, n))
		}
		began := time.Now()
		d := run(b, m.Nodes[0], on(m.Nodes[1], shell(fmt.Sprintf("head -c %d /dev/zero", bigOutput))))
		if d.Status != labmesh.Completed {
			b.Fatalf("%s: %s", d.Status, d.Error)
		}
		b.ReportMetric(float64(bigOutput)/1e6/time.Since(began).Seconds(), "MB/s")
		for i, name := range []string{"copy-", "worker-"} {
			after := usage(b, m.Nodes[i])
			b.ReportMetric(float64(after.PeakBytes-before[i].PeakBytes)/(1<<20), name+"grew-MiB")
			b.ReportMetric(float64(after.PeakBytes)/(1<<20), name+"peak-MiB")
		}
		busy(b)
	}
}
