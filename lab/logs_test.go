package lab_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
	"labmesh/lab"
)

// counting is a task that prints a number and the time in ns every 50 ms.
func counting() labmesh.Spec {
	return shell(`i=0; while [ $i -lt 2000 ]; do echo "$i $(date +%s%N)"; i=$((i+1)); sleep 0.05; done`)
}

// follower is somebody who follows a task's stdout on a node.
type follower struct {
	mu     sync.Mutex
	text   map[int]*bytes.Buffer // by attempt
	notes  []string
	err    error
	ended  chan struct{}
	cancel context.CancelFunc
}

func followLog(t testing.TB, c *client.Client, id labmesh.TaskID) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{text: map[int]*bytes.Buffer{}, ended: make(chan struct{}), cancel: cancel}
	r, err := c.Logs(ctx, id, client.LogQuery{Stream: client.Stdout, Follow: true, After: api.LogPosition{Attempt: 1}})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(f.ended)
		defer r.Close()
		for {
			frame, err := r.Next()
			f.mu.Lock()
			switch {
			case errors.Is(err, io.EOF):
			case err != nil:
				f.err = err
			case frame.Kind == api.LogData:
				if f.text[frame.At.Attempt] == nil {
					f.text[frame.At.Attempt] = new(bytes.Buffer)
				}
				f.text[frame.At.Attempt].Write(frame.Data)
			default:
				f.notes = append(f.notes, string(frame.Text()))
			}
			f.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-f.ended })
	return f
}

// counted checks that an attempt's numbers are whole and in order, and gives the
// time that the last one bears.
func (f *follower) counted(t testing.TB, attempt int) (lines int, last time.Time) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.text[attempt] == nil {
		return 0, last
	}
	for line := range strings.Lines(f.text[attempt].String()) {
		number, at, _ := strings.Cut(strings.TrimSpace(line), " ")
		ns, err := strconv.ParseInt(at, 10, 64)
		if number != strconv.Itoa(lines) || err != nil || !strings.HasSuffix(line, "\n") {
			t.Fatalf("attempt %d: line %q where %d should be", attempt, line, lines)
		}
		lines, last = lines+1, time.Unix(0, ns)
	}
	return lines, last
}

func TestOutputOutlivesItsMachine(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 3, Slots: 2})
	id := submit(t, m.Nodes[0], counting())[0]
	var worker, other *lab.Node
	name := running(t, m.Nodes[0], id)
	for _, n := range m.Nodes {
		if n.Worker() == name {
			worker = n
		} else {
			other = n
		}
	}
	f := followLog(t, other.Client(), id)
	until(t, 15*time.Second, "some output", func() bool { n, _ := f.counted(t, 1); return n >= 40 })
	killed := time.Now()
	if err := worker.Kill(); err != nil {
		t.Fatal(err)
	}
	late := followLog(t, other.Client(), id) // has only the copy to read from
	for who, f := range map[string]*follower{"who followed": f, "who came after": late} {
		until(t, 30*time.Second, "output of the next attempt", func() bool { n, _ := f.counted(t, 2); return n >= 5 })
		lines, last := f.counted(t, 1)
		if lost := killed.Sub(last); lost > time.Second {
			t.Errorf("the last %s before the kill are missing for %s", lost, who)
		} else {
			t.Logf("for %s attempt 1 has %d lines, the last from %s before the kill", who, lines, lost.Round(time.Millisecond))
		}
	}
	f.mu.Lock()
	notes := strings.Join(f.notes, "")
	f.mu.Unlock()
	if !strings.Contains(notes, "attempt 1 was lost with worker "+string(name)) || !strings.Contains(notes, "attempt 2 begins here") {
		t.Errorf("it says %q", notes)
	}
	if _, err := other.Client().Cancel(t.Context(), id, ""); err != nil {
		t.Error(err)
	}
	select {
	case <-f.ended:
	case <-time.After(15 * time.Second):
		t.Error("the following does not end with the task")
	}
	if f.err != nil {
		t.Error(f.err)
	}
}

func TestFollowingOutlivesARestartOfItsNode(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1, Slots: 2})
	worker := m.Nodes[0]
	l, err := net.Listen("tcp", "127.0.0.1:0") // whoever follows comes back to the same port
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	asked, err := m.Join(t.Context(), "--port", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	id := submit(t, worker, on(worker, shell(`i=0; while [ $i -lt 150 ]; do echo "$i $(date +%s%N)"; i=$((i+1)); sleep 0.05; done`)))[0]
	running(t, worker, id)
	c, err := client.New(client.Config{URL: asked.URL(), Key: asked.Key(), Patience: readyWithin})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f := followLog(t, c, id)
	until(t, 15*time.Second, "some output", func() bool { n, _ := f.counted(t, 1); return n >= 20 })
	if err := asked.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := asked.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-f.ended:
	case <-time.After(readyWithin):
		t.Fatal("it has not ended")
	}
	if n, _ := f.counted(t, 1); n != 150 || f.err != nil || len(f.notes) > 0 {
		t.Errorf("%d lines, %v, %v", n, f.notes, f.err)
	}
}

const readyWithin = 30 * time.Second

func TestFollowingOutlivesARestartOfTheWorker(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 2, Slots: 2})
	asked, worker := m.Nodes[0], m.Nodes[1]
	id := submit(t, asked, on(worker, shell(`i=0; while [ $i -lt 200 ]; do echo "$i $(date +%s%N)"; i=$((i+1)); sleep 0.05; done`)))[0]
	running(t, asked, id)
	f := followLog(t, asked.Client(), id)
	until(t, 15*time.Second, "some output", func() bool { n, _ := f.counted(t, 1); return n >= 20 })
	if err := worker.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := worker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-f.ended:
	case <-time.After(2 * readyWithin):
		t.Fatal("it has not ended")
	}
	d := task(t, asked, id)
	if n, _ := f.counted(t, d.Attempts); n != 200 || f.err != nil || d.Status != labmesh.Completed {
		t.Errorf("%s after %d attempts, %d lines of the last, %v, %v", d.Status, d.Attempts, n, f.notes, f.err)
	}
	if d.Attempts == 1 && len(f.notes) > 0 {
		t.Errorf("it says %q of one attempt", f.notes)
	}
	t.Logf("it took %d attempts", d.Attempts)
}
