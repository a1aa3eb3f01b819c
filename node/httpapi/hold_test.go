package httpapi

import (
	"strings"
	"testing"

	"labmesh"
	"labmesh/api"
)

func TestDrainUndrainAndBan(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	for _, c := range []struct {
		path, body string
		code       int
		hold       labmesh.WorkerStatus
		reason     string
	}{
		{"/api/workers/w1/drain", `{"reason":"new disk"}`, 200, labmesh.WorkerDraining, "new disk"},
		{"/api/workers/w1/drain", ``, 200, labmesh.WorkerDraining, "drained by key-admin"},
		{"/api/workers/w1/undrain", ``, 200, "", ""},
		{"/api/workers/nobody/drain", ``, 404, "", ""},
		{"/api/workers/w1/drain", `{"why":"x"}`, 400, "", ""},
		{"/api/workers/w1/drain", `{"reason":"` + strings.Repeat("x", api.LabelCharsMax+1) + `"}`, 400, "", ""},
		{"/api/nodes/w1/ban", ``, 200, "", ""},
		{"/api/nodes/nobody/ban", ``, 404, "", ""},
	} {
		f.reg = labmesh.Worker{}
		w := do(a, "POST", c.path, c.body)
		if w.Code != c.code || f.reg.Hold != c.hold || f.reg.HoldReason != c.reason {
			t.Errorf("POST %s %.40s: %d %s, hold %q for %q", c.path, c.body, w.Code, w.Body, f.reg.Hold, f.reg.HoldReason)
		}
		if c.code == 200 && object(t, w)["message"] == "" {
			t.Errorf("POST %s says nothing", c.path)
		}
	}
}
