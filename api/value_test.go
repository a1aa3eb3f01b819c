package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
)

func TestTimeOnTheWire(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 6, 1, 2, 3, 4567, time.FixedZone("east", 7200))
	for want, in := range map[string]api.Time{
		`"2026-05-05T23:02:03.000004Z"`: {Time: at}, `null`: {},
		`"2026-01-01T00:00:00.000000Z"`: {Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		data, err := json.Marshal(in)
		if err != nil || string(data) != want {
			t.Errorf("%v is %s, not %s (%v)", in, data, want, err)
		}
		back := api.Time{Time: at}
		if err := json.Unmarshal(data, &back); err != nil || !back.Equal(in.Truncate(time.Microsecond)) {
			t.Errorf("%s comes back as %v, %v", data, back, err)
		}
	}
	for _, bad := range []string{`7`, `"yesterday"`, `""`, `{}`} {
		var back api.Time
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s was read as %v", bad, back)
		}
	}
}

func TestTextOnTheWire(t *testing.T) {
	t.Parallel()
	for want, in := range map[string]api.Text{`null`: "", `"a\"<é>"`: `a"<é>`} {
		data, err := json.Marshal(struct{ T api.Text }{in})
		var back struct{ T api.Text }
		if err2 := json.Unmarshal(data, &back); err != nil || err2 != nil || back.T != in {
			t.Errorf("%q: %s, %v, %v", in, data, err, err2)
		}
		if raw, err := in.MarshalJSON(); err != nil || string(raw) != want {
			t.Errorf("%q is %s, not %s (%v)", in, raw, want, err)
		}
	}
}

func TestDetailsAreFlat(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(api.TaskDetail{Task: api.Task{ID: "t1"}})
	if err != nil {
		t.Fatal(err)
	}
	var d api.TaskDetail
	if err := json.Unmarshal(data, &d); err != nil || d.ID != "t1" {
		t.Errorf("%+v, %v", d, err)
	}
	var flat map[string]any
	if err := json.Unmarshal(data, &flat); err != nil || flat["task_id"] != "t1" {
		t.Errorf("%s", data)
	}
}

func TestErrorIsARefusalAgain(t *testing.T) {
	t.Parallel()
	var e api.Error
	if err := json.Unmarshal([]byte(`{"error":"priority: no","reason":"invalid","field":"priority"}`), &e); err != nil {
		t.Fatal(err)
	}
	if r := e.Refusal(); labmesh.ReasonOf(r) != labmesh.Invalid || r.Field != "priority" || r.Error() != "priority: no" || e.Error() != r.Error() {
		t.Errorf("%+v", r)
	}
}
