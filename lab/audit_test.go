package lab_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"labmesh/api"
	"labmesh/lab"
)

// TestWhatWasDoneIsOnRecord: who did it, from where, and what came of it, on every
// node; with one line for many submits and for a flood of wrong keys, and also what was done just before the node stopped.
func TestWhatWasDoneIsOnRecord(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1, Slots: 2})
	n := m.Nodes[0]
	for range 5 {
		submit(t, n, shell("true"))
	}
	for range 30 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, n.URL()+"/api/secrets/X", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-API-Key", "lmk_00000000_wrong")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	set := n.Command(within(t, time.Minute), "secret", "set", "TOKEN")
	set.Stdin = strings.NewReader("not for the record\n")
	if out, err := set.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := n.Stop(); err != nil { // before a second has passed
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	out, code := say(t, n, "audit", "--json", "--since", "1h")
	var log api.AuditLog
	if code != 0 || json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &log) != nil {
		t.Fatalf("exit %d: %s", code, out)
	}
	submits, wrong, secrets := 0, 0, 0
	for _, r := range log.Records {
		if r.Remote != "127.0.0.1" || r.Node == "" || time.Since(r.At) > time.Hour {
			t.Errorf("%+v", r)
		}
		switch {
		case r.Action == "POST /api/tasks" || r.Action == "POST /api/tasks/batch":
			submits += max(1, r.Count)
			if r.Actor == "" || r.Role != "admin" || r.Outcome != "ok" || r.Target == "" {
				t.Errorf("%+v", r)
			}
		case r.Outcome == "unauthenticated":
			wrong += max(1, r.Count)
			if r.Actor != "" {
				t.Errorf("%+v", r)
			}
		case r.Action == "PUT /api/secrets/{name}" && r.Target == "TOKEN" && r.Outcome == "ok":
			secrets++
		}
	}
	if submits != 5 || wrong != 30 || secrets != 1 || len(log.Records) > 12 {
		t.Errorf("%d submits, %d wrong keys, %d secrets in %d records: %s", submits, wrong, secrets, len(log.Records), out)
	}
	if bytes.Contains([]byte(out), []byte("not for the record")) {
		t.Error("a secret is on record")
	}
	if table, code := say(t, n, "audit", "--action", "secret"); code != 0 || !strings.Contains(table, "TOKEN") {
		t.Errorf("exit %d: %s", code, table)
	}
}
