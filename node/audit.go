package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"labmesh"
	"labmesh/node/httpapi"
	"labmesh/state"
)

// Limits of the audit log. Records wait in memory for auditEvery, and in a file of the data dir
// while there is no leader.
const (
	auditEvery     = time.Second
	auditStrangers = 10              // times auditEvery that records of unknown callers are gathered
	auditAlike     = 20              // records of the same thing that are kept apart in one round
	auditPending   = 2000            // records in memory
	auditSpoolMax  = 16 << 20        // bytes of the file
	auditLastWait  = 2 * time.Second // for what is left when the node stops
	auditLevel     = 4               // the feature level that knows the log
)

// alike is what records have in common that may be counted as one.
type alike struct{ actor, remote, action, outcome string }

// auditor gathers records of what is done through this node, and puts them into the log.
type auditor struct {
	dir     *dataDir
	self    labmesh.NodeID
	view    func() state.View
	propose func(context.Context, ...labmesh.Command) (labmesh.Receipt, error)
	logger  *slog.Logger

	mu        sync.Mutex
	records   []*labmesh.AuditRecord
	last      map[alike]*labmesh.AuditRecord // that the next of its kind is counted in
	seen      map[alike]int
	strangers map[alike]*labmesh.AuditRecord
}

var _ httpapi.Auditor = (*auditor)(nil)

func newAuditor(n *Node) *auditor {
	a := &auditor{dir: n.dir, self: n.host.ID(), view: n.replica.View, propose: n.replica.Propose, logger: n.cfg.Logger, strangers: map[alike]*labmesh.AuditRecord{}}
	a.clear()
	return a
}

func (a *auditor) clear() {
	a.records, a.last, a.seen = nil, map[alike]*labmesh.AuditRecord{}, map[alike]int{}
}

// often are actions that are counted from the first on: a mesh takes thousands a second of them.
func often(action string) bool {
	return strings.HasPrefix(action, "POST /api/tasks") || strings.HasPrefix(action, "POST /api/bundles")
}

// Audit takes a record. What is done often, and what strangers try, is counted.
func (a *auditor) Audit(r labmesh.AuditRecord) {
	r.Node = a.self
	kind := alike{r.Actor, r.Remote, r.Action, r.Outcome}
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.Actor == "" {
		kind.action = "" // whoever has no key is told apart by address alone
		if _, ok := a.strangers[kind]; !ok && len(a.strangers) >= auditPending {
			kind.remote, r.Remote = "", "many"
		}
		a.count(a.strangers, kind, &r)
		return
	}
	a.seen[kind]++
	if a.seen[kind] > auditAlike || often(r.Action) && a.seen[kind] > 1 || len(a.records) >= auditPending {
		if len(a.records) >= auditPending && a.last[kind] == nil {
			kind = alike{outcome: r.Outcome} // more kinds of things than anybody does
			r = labmesh.AuditRecord{At: r.At, Node: r.Node, Remote: "many", Action: "other", Outcome: r.Outcome, Count: r.Count}
		}
		if a.last[kind] != nil {
			a.count(a.last, kind, &r)
			return
		}
	}
	a.last[kind] = &r
	a.records = append(a.records, &r)
}

// count adds r to the record of its kind.
func (a *auditor) count(to map[alike]*labmesh.AuditRecord, kind alike, r *labmesh.AuditRecord) {
	if old := to[kind]; old != nil {
		old.Count = max(1, old.Count) + max(1, r.Count)
		return
	}
	to[kind] = r
}

// take returns what has been gathered; of strangers only where they are asked for.
func (a *auditor) take(strangers bool) (out []labmesh.AuditRecord) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.records {
		out = append(out, *r)
	}
	a.clear()
	if strangers {
		for _, r := range a.strangers {
			out = append(out, *r)
		}
		a.strangers = map[alike]*labmesh.AuditRecord{}
	}
	return out
}

// run puts records into the log until ctx ends.
func (a *auditor) run(ctx context.Context) error {
	tick := time.NewTicker(auditEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
			a.flush(ctx, n%auditStrangers == 0)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditLastWait)
			defer cancel()
			a.flush(last, true)
			return nil
		}
	}
}

// flush puts what waits into the log, or into the file where there is no leader.
func (a *auditor) flush(ctx context.Context, strangers bool) {
	if a.view().Level() < auditLevel {
		if a.view().Mesh() != "" {
			a.take(true) // the mesh cannot keep them yet
		}
		return
	}
	records := a.take(strangers)
	spooled, err := a.spooled()
	if err != nil {
		a.logger.ErrorContext(ctx, "records for the audit log cannot be read back", "err", err)
	}
	all := append(spooled, records...)
	for len(all) > 0 {
		some := all[:min(len(all), labmesh.AuditRecordsMax)]
		if _, err := a.propose(ctx, labmesh.RecordAudit{Records: some}); err != nil {
			a.logger.DebugContext(ctx, "the audit log has to wait", "err", err)
			break
		}
		all = all[len(some):]
	}
	if len(all) == len(spooled)+len(records) && len(records) == 0 {
		return // nothing changed
	}
	if err := a.spool(all); err != nil {
		a.logger.ErrorContext(ctx, "records for the audit log are lost", "records", len(all), "err", err)
	}
}

// spooled are the records that wait in the file.
func (a *auditor) spooled() (out []labmesh.AuditRecord, err error) {
	data, err := os.ReadFile(a.dir.file(auditFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", auditFile, err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, auditSpoolMax)
	for lines.Scan() {
		var r labmesh.AuditRecord
		if json.Unmarshal(lines.Bytes(), &r) == nil {
			out = append(out, r)
		}
	}
	return out, lines.Err()
}

// spool makes the file hold records, and removes it when there are none.
func (a *auditor) spool(records []labmesh.AuditRecord) error {
	if len(records) == 0 {
		if err := os.Remove(a.dir.file(auditFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", auditFile, err)
		}
		return nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for i := range records {
		if b.Len() > auditSpoolMax {
			return labmesh.Refuse(labmesh.Exhausted, "%s is full: the mesh has had no leader for too long", auditFile)
		}
		if err := enc.Encode(&records[i]); err != nil {
			return err
		}
	}
	return a.dir.write(auditFile, b.Bytes())
}

// AuditLog lists what was done to the mesh, from the ledger.
func (s *service) AuditLog(ctx context.Context, f httpapi.AuditFilter) ([]labmesh.AuditRecord, error) {
	quoted := func(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
	where := "true"
	if !f.Since.IsZero() {
		where += " AND time >= TIMESTAMP " + quoted(f.Since.UTC().Format("2006-01-02 15:04:05.000000"))
	}
	if f.Actor != "" {
		where += fmt.Sprintf(" AND (actor = %s OR name = %[1]s OR node_id = %[1]s)", quoted(f.Actor))
	}
	if f.Action != "" {
		where += " AND contains(lower(action), lower(" + quoted(f.Action) + "))"
	}
	sql := "SELECT to_json({time: epoch_us(time), actor: actor, name: name, role: role, remote: remote, node_id: node_id, action: action, target: target, outcome: outcome, detail: detail, count: count})::VARCHAR" +
		" FROM audit_log WHERE " + where + fmt.Sprintf(" ORDER BY log_index DESC, n DESC, place DESC LIMIT %d", f.Limit)
	found, err := s.Query(ctx, httpapi.Query{SQL: sql, MaxRows: f.Limit})
	if err != nil {
		return nil, err
	}
	var out []labmesh.AuditRecord
	for _, row := range found.Rows {
		text, _ := row[0].(string)
		var r struct {
			labmesh.AuditRecord
			Time int64 `json:"time"`
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		r.At = time.UnixMicro(r.Time).UTC()
		out = append(out, r.AuditRecord)
	}
	return out, nil
}
