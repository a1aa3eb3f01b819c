package nodetest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/exec"
	"labmesh/exec/output"
	"labmesh/node/httpapi"
	"labmesh/node/nodetest"
)

// counter is a runner that prints how many times it has, every 50 ms.
type counter struct{ times int }

const countEvery = 50 * time.Millisecond

func (c counter) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	for i := range c.times {
		a.Output.Write(output.Stdout, fmt.Appendf(nil, "%d:%d\n", a.Number, i))
		select {
		case <-time.After(countEvery):
		case <-ctx.Done():
			cause, message, _ := exec.Stopped(ctx)
			return labmesh.Outcome{Cause: cause, Error: message}
		}
	}
	return labmesh.Outcome{OK: true}
}

func startCounting(t *testing.T, n, times int) *nodetest.Mesh {
	t.Helper()
	return nodetest.Start(t, n, map[labmesh.Kind]exec.Runner{labmesh.Custom: counter{times}})
}

// followed is what a follower on a node has been sent.
type followed struct {
	mu   sync.Mutex
	text strings.Builder
	at   api.LogPosition
	done chan struct{}
	err  error
}

func follow(t *testing.T, m *nodetest.Mesh, node int, r httpapi.LogRequest) *followed {
	t.Helper()
	f := &followed{done: make(chan struct{})}
	r.Follow, r.Stream = true, "stdout"
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(func() { cancel(); <-f.done })
	go func() {
		defer close(f.done)
		f.err = m.Nodes[node].Service().Logs(ctx, r, func(g api.LogFrame) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if g.Kind != api.LogStill {
				f.at = g.After()
			}
			f.text.Write(g.Text())
			return nil
		})
	}()
	return f
}

func (f *followed) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.text.String()
}

// end waits for the end of the output and gives it.
func (f *followed) end(t *testing.T) string {
	t.Helper()
	select {
	case <-f.done:
	case <-time.After(5 * time.Minute):
		t.Fatalf("it has not ended; it has %q", f)
	}
	if f.err != nil {
		t.Errorf("it ended with %v", f.err)
	}
	return f.String()
}

// counted checks that an attempt's numbers are there without a hole and in
// order, from 0, and says how many.
func counted(t *testing.T, text string, attempt int) (n int) {
	t.Helper()
	for _, word := range regexp.MustCompile(fmt.Sprintf(`(?m)^%d:(\d+)$`, attempt)).FindAllStringSubmatch(text, -1) {
		if got, _ := strconv.Atoi(word[1]); got != n {
			t.Fatalf("attempt %d: %d where %d should be", attempt, got, n)
		}
		n++
	}
	return n
}

func TestOutputIsFollowedFromTheSubmitOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startCounting(t, 3, 40)
		spec := labmesh.Spec{Requirements: labmesh.Requirements{WorkerID: "w1", Exclusive: true}}
		first := m.Submit(t, 0, spec)
		second := m.Submit(t, 1, spec) // waits for the first to end
		var all []*followed
		for i := range 3 { // no sleep in between: not every node knows of them yet
			all = append(all, follow(t, m, i, httpapi.LogRequest{Task: first}), follow(t, m, i, httpapi.LogRequest{Task: second}))
		}
		for i, f := range all {
			if text := f.end(t); counted(t, text, 1) != 40 || strings.Contains(text, "labmesh:") {
				t.Errorf("follower %d has %q", i, text)
			}
		}
		if err := m.Nodes[0].Service().Logs(t.Context(), httpapi.LogRequest{Task: "nobody", Follow: true}, nil); labmesh.ReasonOf(err) != labmesh.NotFound {
			t.Errorf("a task that nobody submitted: %v", err)
		}
	})
}

func TestTheLastWordsOfALostWorkerAreThere(t *testing.T) {
	for _, who := range []string{"a follower", "the leader"} {
		t.Run(who, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := startCounting(t, 3, 400) // 20 s
				victim := m.Leader(t).Index
				if who != "the leader" {
					victim = (victim + 1) % 3
				}
				rest := (victim + 1) % 3
				// It is to run elsewhere when its worker is lost: it does not name one.
				for i := range 3 {
					if i != victim {
						m.Submit(t, 0, labmesh.Spec{Requirements: labmesh.Requirements{WorkerID: labmesh.WorkerID(fmt.Sprint("w", i)), Exclusive: true}})
					}
				}
				time.Sleep(time.Second)
				id := m.Submit(t, rest, labmesh.Spec{})
				f := follow(t, m, rest, httpapi.LogRequest{Task: id})
				time.Sleep(5 * time.Second)
				if w := m.Task(t, rest, id).Worker; w != labmesh.WorkerID(fmt.Sprint("w", victim)) {
					t.Fatalf("it runs on %s", w)
				}
				began := m.Task(t, rest, id).Started
				m.Cut(victim)
				printed := int(time.Since(began) / countEvery)
				text := f.end(t)
				one, two := counted(t, text, 1), counted(t, text, 2)
				if one < printed-20 || two != 400 {
					t.Errorf("of %d lines before the cut %d are there, and %d of the second attempt", printed, one, two)
				}
				first, second, ok := strings.Cut(text, "\n[labmesh: attempt 2 begins here]\n")
				if !ok || counted(t, first, 2) > 0 || counted(t, second, 1) > 0 || !strings.Contains(first, "[labmesh: attempt 1 was lost with worker") {
					t.Errorf("it reads %q", text)
				}
				t.Logf("%d lines of %d were there", one, printed)
				// What was followed came from the worker itself: it may end a few
				// lines after the copy that is left, which is a look (50 ms) or two behind.
				kept := func(again string) bool {
					lost := one - counted(t, "1:0\n1:1\n"+again, 1)
					note := strings.Index(text, "\n[labmesh:")
					from := note
					if lost > 0 {
						from = strings.Index(text, fmt.Sprintf("1:%d\n", one-lost))
					}
					return lost >= 0 && lost <= 4 && "1:0\n1:1\n"+again == text[:from]+text[note:]
				}
				at := api.LogPosition{Attempt: 1, Offset: int64(len("1:0\n1:1\n"))}
				if again := follow(t, m, rest, httpapi.LogRequest{Task: id, After: at}).end(t); !kept(again) {
					t.Errorf("after %v it reads %.600q, and it read %.600q", at, again, text)
				}
				only := ""
				err := m.Nodes[rest].Service().Logs(t.Context(), httpapi.LogRequest{Task: id, Attempt: 1, Stream: "stdout"}, func(g api.LogFrame) error {
					only += string(g.Text())
					return nil
				})
				if rest := strings.TrimPrefix(only, "1:0\n1:1\n") + text[len(first):]; err != nil || !kept(rest) {
					t.Errorf("attempt 1 alone reads %.600q, %v", only, err)
				}
			})
		})
	}
}

func TestFollowingOutlivesTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startCounting(t, 3, 600) // 30 s
		leader := m.Leader(t).Index
		worker, reader := (leader+1)%3, (leader+2)%3
		id := m.Submit(t, reader, labmesh.Spec{Requirements: labmesh.Requirements{WorkerID: labmesh.WorkerID(fmt.Sprint("w", worker))}})
		f := follow(t, m, reader, httpapi.LogRequest{Task: id})
		time.Sleep(5 * time.Second)
		m.Cut(leader)
		if text := f.end(t); counted(t, text, 1) != 600 || strings.Contains(text, "labmesh:") {
			t.Errorf("it reads %q", text)
		}
	})
}

// copyOf finds the node that has a copy of an attempt's output.
func copyOf(t *testing.T, m *nodetest.Mesh, id labmesh.TaskID, but ...int) (at int) {
	t.Helper()
	m.Wait(t, 10*time.Second, "a copy", func() bool {
		for i := range m.Nodes {
			path := filepath.Join(m.Dir(i), "mirror", string(id), "1", "stdout")
			if info, err := os.Stat(path); err == nil && info.Size() > 0 && time.Since(m.Task(t, i, id).Created) > 0 {
				skip := false
				for _, b := range but {
					skip = skip || b == i
				}
				if !skip {
					at = i
					return true
				}
			}
		}
		return false
	})
	return at
}

func TestACopyIsMadeAnewWhenItsNodeGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startCounting(t, 5, 1200) // a minute
		worker := (m.Leader(t).Index + 1) % 5
		id := m.Submit(t, worker, labmesh.Spec{MaxAttempts: 1, Requirements: labmesh.Requirements{WorkerID: labmesh.WorkerID(fmt.Sprint("w", worker))}})
		time.Sleep(2 * time.Second)
		first := copyOf(t, m, id)
		m.Cut(first)
		time.Sleep(20 * time.Second)
		second := copyOf(t, m, id, first)
		m.Cut(first, worker) // both are away, and reach each other: nobody else does
		reader := 0
		for reader == first || reader == worker || reader == second {
			reader++
		}
		f := follow(t, m, reader, httpapi.LogRequest{Task: id})
		text := f.end(t)
		if n := counted(t, text, 1); n < 22*20-20 || n > 40*20 {
			t.Errorf("%d lines are there: %q", n, text)
		}
		if first == second || !strings.Contains(text, "is from a copy on another node") {
			t.Errorf("copies on %d and %d: %q", first, second, text)
		}
	})
}

// loud is a runner that prints more than is kept.
type loud struct{ text []byte }

func (l loud) Run(_ context.Context, a exec.Attempt) labmesh.Outcome {
	a.Output.Write(output.Stdout, l.text)
	return labmesh.Outcome{OK: true}
}

func TestOutputIsReadFromWhatTheAttemptLeft(t *testing.T) {
	var text []byte
	for i := 0; len(text) < output.HeadBytesMax+output.TailBytesMax+1<<20; i++ {
		text = fmt.Appendf(text, "%d\n", 100_000_000+i)
	}
	lost := int64(len(text) - output.HeadBytesMax - output.TailBytesMax)
	want := string(text[:output.HeadBytesMax]) + labmesh.LeftOut(lost) + string(text[len(text)-output.TailBytesMax:])
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.Start(t, 3, map[labmesh.Kind]exec.Runner{labmesh.Custom: loud{text}})
		worker := (m.Leader(t).Index + 1) % 3
		reader := (worker + 1) % 3
		id := m.Submit(t, reader, labmesh.Spec{Requirements: labmesh.Requirements{WorkerID: labmesh.WorkerID(fmt.Sprint("w", worker))}})
		m.Wait(t, time.Minute, "it to end", func() bool { return m.Task(t, reader, id).Phase.Final() })
		if m.Task(t, reader, id).Outputs == nil {
			t.Fatal("it left nothing")
		}
		time.Sleep(20 * time.Second) // for its outputs to be on a second node
		for i := range m.Nodes {
			if err := os.RemoveAll(filepath.Join(m.Dir(i), "mirror")); err != nil {
				t.Fatal(err)
			}
		}
		m.Cut(worker)
		time.Sleep(20 * time.Second)
		f := follow(t, m, reader, httpapi.LogRequest{Task: id})
		if got := f.end(t); got != want || f.at.Offset != int64(len(text)) {
			t.Errorf("%d bytes, want %d, to %v: it ends with %q", len(got), len(want), f.at, got[max(0, len(got)-200):])
		}
	})
}

func TestOutputThatIsLostIsSaidToBeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startCounting(t, 3, 1) // one line and 50 ms: no copy is made
		worker := (m.Leader(t).Index + 1) % 3
		reader := (worker + 1) % 3
		id := m.Submit(t, reader, labmesh.Spec{Requirements: labmesh.Requirements{WorkerID: labmesh.WorkerID(fmt.Sprint("w", worker))}})
		m.Wait(t, time.Minute, "it to end", func() bool { return m.Task(t, reader, id).Phase.Final() })
		time.Sleep(time.Second)
		m.Cut(worker)
		time.Sleep(20 * time.Second)
		if text := follow(t, m, reader, httpapi.LogRequest{Task: id}).end(t); !strings.Contains(text, "cannot be reached, and no other node has a copy") {
			t.Errorf("it reads %q", text)
		}
		err := m.Nodes[reader].Service().Logs(t.Context(), httpapi.LogRequest{Task: id, Stream: "stdout"}, func(api.LogFrame) error { return errors.New("nothing was to come") })
		if labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Errorf("without following: %v", err)
		}
		m.Heal(worker)
		m.Wait(t, time.Minute, "the worker to be back", func() bool {
			return m.Nodes[reader].Service().Logs(t.Context(), httpapi.LogRequest{Task: id, Stream: "stdout"}, func(api.LogFrame) error { return nil }) == nil
		})
	})
}
