package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"labmesh"
	"labmesh/api"
)

const settleWait = 60 * time.Second // for all ledgers to reach the same index

// Tables are those whose rows must be identical on every node.
func Tables() []string {
	return []string{"distributed_tasks", "task_execution_history", "test_results"}
}

// Settle waits until all running nodes have applied and recorded the same log.
func (m *Mesh) Settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleWait, fmt.Errorf("the nodes had not recorded the same log after %s", settleWait))
	defer cancel()
	var seen string
	err := Until(ctx, func() bool {
		seen = ""
		var index []uint64
		for _, n := range m.Running() {
			st, err := n.Client().Status(ctx)
			if err != nil {
				seen += fmt.Sprintf(" %s: %v;", n.Name, err)
				return false
			}
			seen += fmt.Sprintf(" %s: applied %d, ledger %d;", n.Name, st.Applied, st.Ledger)
			index = append(index, st.Applied, st.Ledger)
		}
		return len(index) > 0 && slices.Min(index) == slices.Max(index)
	})
	if err != nil {
		return fmt.Errorf("settle: %w:%s", err, seen)
	}
	return nil
}

// Rows is the whole of a table as a node's API shows it, each row as JSON, in
// the order of the rows' text.
func (n *Node) Rows(ctx context.Context, table string) ([]string, error) {
	reply, err := n.Client().Query(ctx, api.QueryRequest{SQL: "SELECT * FROM " + table, MaxRows: api.QueryRowsMax})
	if err != nil {
		return nil, fmt.Errorf("read %s on %s: %w", table, n.Name, err)
	}
	if reply.Truncated {
		return nil, fmt.Errorf("read %s on %s: it has more than %d rows", table, n.Name, api.QueryRowsMax)
	}
	rows := make([]string, len(reply.Rows))
	for i, row := range reply.Rows {
		data, err := json.Marshal(row)
		if err != nil {
			return nil, fmt.Errorf("read %s on %s: %w", table, n.Name, err)
		}
		rows[i] = string(data)
	}
	slices.Sort(rows)
	return rows, nil
}

// Identical waits until the nodes have settled, and is an error that shows the
// first difference when not all running nodes have the same rows.
func (m *Mesh) Identical(ctx context.Context) error {
	if err := m.Settle(ctx); err != nil {
		return err
	}
	for _, table := range Tables() {
		var first []string
		for i, n := range m.Running() {
			rows, err := n.Rows(ctx, table)
			if err != nil {
				return err
			}
			if i == 0 {
				first = rows
			} else if !slices.Equal(first, rows) {
				return fmt.Errorf("%s differs between %s (%d rows) and %s (%d rows): %s", table,
					m.Running()[0].Name, len(first), n.Name, len(rows), difference(first, rows))
			}
		}
	}
	return nil
}

// difference is the first row that only one of two sorted lists has.
func difference(a, b []string) string {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return "only the second has " + b[i]
		case i >= len(b):
			return "only the first has " + a[i]
		case a[i] != b[i]:
			return "the first has " + a[i] + ", the second " + b[i]
		}
	}
	return "none"
}

// Tally is what became of tasks, as one node's ledger has it.
type Tally struct {
	Tasks     int // asked about
	Ended     int // with a verdict
	Completed int
	Lost      int // that the ledger does not hold, or without a verdict
	Twice     int // with more than one row, or more than one accepted attempt
	Restarted int // started more than once although no worker that held one was killed
	Rerun     int // started more than once because the worker that held one was killed
}

// OK reports whether every task has ended once and none was restarted for nothing.
func (t Tally) OK() bool {
	return t.Ended == t.Tasks && t.Lost == 0 && t.Twice == 0 && t.Restarted == 0
}

func (t Tally) String() string {
	return fmt.Sprintf("%d tasks: %d ended (%d completed), %d lost, %d with two results, %d restarted for nothing, %d run again after their worker was killed",
		t.Tasks, t.Ended, t.Completed, t.Lost, t.Twice, t.Restarted, t.Rerun)
}

// tallySQL has a row for each row of distributed_tasks: how many of its attempts
// were accepted with the verdict, and which workers held earlier attempts.
const tallySQL = `
SELECT t.task_id, t.status,
  (SELECT count(*) FROM task_execution_history h WHERE h.task_id = t.task_id AND h.status NOT IN ('lost', 'superseded') AND (h.attempt = t.attempts OR h.status = 'completed')) AS accepted,
  (SELECT coalesce(string_agg(h.worker_id, ','), '') FROM task_execution_history h WHERE h.task_id = t.task_id AND h.attempt < t.attempts) AS earlier
FROM distributed_tasks t`

// Tally counts what became of ids in the ledger of n. Killed are the workers that
// were killed: their attempts had to be run again.
func (n *Node) Tally(ctx context.Context, ids []labmesh.TaskID, killed ...labmesh.WorkerID) (Tally, error) {
	reply, err := n.Client().Query(ctx, api.QueryRequest{SQL: tallySQL, MaxRows: api.QueryRowsMax})
	if err != nil {
		return Tally{}, fmt.Errorf("tally on %s: %w", n.Name, err)
	}
	rows := map[labmesh.TaskID][][]any{}
	for _, r := range reply.Rows {
		id := labmesh.TaskID(r[0].(string)) // the ledger says VARCHAR
		rows[id] = append(rows[id], r)
	}
	t := Tally{Tasks: len(ids)}
	for _, id := range ids {
		t.count(rows[id], killed)
	}
	return t, nil
}

// allOf reports whether a list of workers, with commas between, holds killed ones only.
func allOf(list string, killed []labmesh.WorkerID) bool {
	for w := range strings.SplitSeq(list, ",") {
		if !slices.Contains(killed, labmesh.WorkerID(w)) {
			return false
		}
	}
	return true
}

func (t *Tally) count(rows [][]any, killed []labmesh.WorkerID) {
	if len(rows) == 0 {
		t.Lost++
		return
	}
	phase := labmesh.Phase(rows[0][1].(string))
	if !phase.Final() {
		t.Lost++
		return
	}
	t.Ended++
	if phase == labmesh.Completed {
		t.Completed++
	}
	if accepted := fmt.Sprint(rows[0][2]); len(rows) > 1 || accepted != "0" && accepted != "1" {
		t.Twice++
	}
	earlier := rows[0][3].(string)
	switch {
	case earlier == "":
	case allOf(earlier, killed):
		t.Rerun++
	default:
		t.Restarted++
	}
}
