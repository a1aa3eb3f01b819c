package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
	"labmesh/lab"
)

// Bounds on what a healed mesh may take.
const (
	healWait  = 60 * time.Second // to have a leader and all workers again
	drainWait = 3 * time.Minute  // to end all that was submitted
	goneWait  = 15 * time.Second // until no process of an attempt is left
)

// tallySQL has one row for each task that was ever submitted, by its own word and
// by that of its attempts: how many of them have the verdict.
const tallySQL = `SELECT t.task_id, t.status,
  (SELECT count(*) FROM task_execution_history h WHERE h.task_id = t.task_id AND h.status NOT IN ('lost', 'superseded') AND (h.attempt = t.attempts OR h.status = 'completed')) AS accepted
FROM distributed_tasks t`

// digestSQL is the same on two nodes whose tables have the same rows, in any order.
const digestSQL = `SELECT count(*), coalesce(sum(hash(t)), 0)::VARCHAR FROM %s t`

// Verdict is what a run came to, by what the nodes say and by the diary.
type Verdict struct {
	Submitted int
	Lost      int // acknowledged, and without a final state on some node
	Double    int // with two rows, or two accepted results, on some node
	Unrun     int // completed, although the diary has no run that came to its end
	Runs      int
	Overlaps  []Overlap // of runs of one task
}

func (v Verdict) String() string {
	s := fmt.Sprintf("%d acknowledged, %d lost, %d double, %d completed without having run; %d runs, %d of them beside another of their task", v.Submitted, v.Lost, v.Double, v.Unrun, v.Runs, len(v.Overlaps))
	if len(v.Overlaps) > 0 {
		o := v.Overlaps[0]
		s += fmt.Sprintf("; the longest for %s: %s: %s, and %s", o.For.Round(time.Millisecond), o.First.Task, o.First, o.Second)
	}
	return s
}

// Err is what must never be. Overlaps are for the caller to judge: an attempt whose
// worker is cut off may go on for a lease.
func (v Verdict) Err() error {
	if v.Lost+v.Double+v.Unrun > 0 {
		return errors.New(v.String())
	}
	return nil
}

// Verify waits until a healed mesh has ended all that was acknowledged, and checks
// on every running node that nothing is lost and nothing counted twice, that all
// nodes have the same rows, that what completed has really run, and that no process is left.
func Verify(ctx context.Context, m *lab.Mesh, w *Work, acknowledged []labmesh.TaskID) (Verdict, error) {
	v := Verdict{Submitted: len(acknowledged)}
	if err := bounded(ctx, healWait, "form again", m.Formed); err != nil {
		return v, err
	}
	nodes := m.Running()
	err := bounded(ctx, drainWait, "end all tasks", func(ctx context.Context) error {
		return nodes[0].Client().Wait(ctx, acknowledged, func(client.Verdict) {})
	})
	if err != nil {
		return v, err
	}
	if err := m.Settle(ctx); err != nil {
		return v, err
	}
	runs, err := w.Runs()
	if err != nil {
		return v, err
	}
	v.Runs, v.Overlaps = len(runs), Overlaps(runs)
	if err := v.tally(ctx, nodes, acknowledged, runs); err != nil {
		return v, err
	}
	if err := Same(ctx, nodes); err != nil {
		return v, err
	}
	return v, errors.Join(v.Err(), bounded(ctx, goneWait, "leave no process behind", func(ctx context.Context) error { return census(ctx, m) }))
}

func bounded(ctx context.Context, d time.Duration, what string, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d, fmt.Errorf("the mesh did not %s within %s", what, d))
	defer cancel()
	return do(ctx)
}

func census(ctx context.Context, m *lab.Mesh) error {
	var left []lab.Process
	err := lab.Until(ctx, func() bool {
		found, err := m.Attempts()
		left = found
		return err == nil && len(found) == 0
	})
	if err != nil {
		return fmt.Errorf("%w: %v", err, left)
	}
	return nil
}

// tally counts the faults that any node shows; a task counts once for each fault.
func (v *Verdict) tally(ctx context.Context, nodes []*lab.Node, acknowledged []labmesh.TaskID, runs []Run) error {
	ended := map[labmesh.TaskID]bool{}
	for _, r := range runs {
		ended[r.Task] = ended[r.Task] || r.Ended
	}
	lost, double, unrun := map[labmesh.TaskID]bool{}, map[labmesh.TaskID]bool{}, map[labmesh.TaskID]bool{}
	for _, n := range nodes {
		reply, err := n.Client().Query(ctx, api.QueryRequest{SQL: tallySQL, MaxRows: api.QueryRowsMax})
		if err != nil {
			return fmt.Errorf("tally on %s: %w", n.Name, err)
		}
		final := make(map[labmesh.TaskID]bool, len(reply.Rows))
		for _, row := range reply.Rows {
			id, phase := labmesh.TaskID(fmt.Sprint(row[0])), labmesh.Phase(fmt.Sprint(row[1]))
			if _, twice := final[id]; twice || fmt.Sprint(row[2]) > "1" {
				double[id] = true
			}
			final[id] = phase.Final()
			if phase == labmesh.Completed && !ended[id] {
				unrun[id] = true
			}
		}
		for _, id := range acknowledged {
			if !final[id] {
				lost[id] = true
			}
		}
	}
	v.Lost, v.Double, v.Unrun = len(lost), len(double), len(unrun)
	return nil
}

// Same is an error when two nodes that have settled differ in the rows of a table.
func Same(ctx context.Context, nodes []*lab.Node) error {
	for _, table := range lab.Tables() {
		var first string
		for i, n := range nodes {
			reply, err := n.Client().Query(ctx, api.QueryRequest{SQL: fmt.Sprintf(digestSQL, table)})
			if err != nil {
				return fmt.Errorf("compare %s on %s: %w", table, n.Name, err)
			}
			digest := fmt.Sprint(reply.Rows)
			if i == 0 {
				first = digest
			} else if digest != first {
				return fmt.Errorf("%s differs: %s has %s, %s has %s (rows, digest)", table, nodes[0].Name, first, n.Name, digest)
			}
		}
	}
	return nil
}

// Footprint is what a node keeps of its machine while it does nothing.
type Footprint struct {
	Goroutines int
	Files      int
	RSSBytes   int64
}

// Weigh measures a node from without, and asks it for its goroutines.
func Weigh(ctx context.Context, n *lab.Node) (Footprint, error) {
	u, err := n.Usage()
	if err != nil {
		return Footprint{}, err
	}
	f := Footprint{Files: u.OpenFiles, RSSBytes: u.RSSBytes}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+"/metrics", nil)
	if err != nil {
		return f, fmt.Errorf("weigh %s: %w", n.Name, err)
	}
	req.Header.Set("X-API-Key", n.Key())
	c := http.Client{Transport: n.API().Transport}
	resp, err := c.Do(req)
	if err != nil {
		return f, fmt.Errorf("weigh %s: %w", n.Name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return f, fmt.Errorf("weigh %s: %w", n.Name, err)
	}
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			f.Goroutines, err = strconv.Atoi(strings.TrimSpace(value))
			return f, err
		}
	}
	return f, fmt.Errorf("weigh %s: it does not say how many goroutines it has", n.Name)
}
