package httpapi

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

type openAPI struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		OperationID string
		RequestBody *struct{ Required bool }
		Responses   map[string]any
		Security    []any
	}
	Components struct {
		Schemas map[string]struct {
			Properties           map[string]json.RawMessage
			Required             []string
			AdditionalProperties any
		}
	}
}

// TestDocumentAndMuxAgree asks the mux, by requests, for everything that the
// document has, and the document for every route.
func TestDocumentAndMuxAgree(t *testing.T) {
	t.Parallel()
	f := newFake()
	close(f.more)
	a, _ := newAPI(t, f)
	w := do(a, "GET", "/openapi.json", "")
	var doc openAPI
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("openapi %q", doc.OpenAPI)
	}
	ids := map[string]bool{}
	operations := 0
	for path, item := range doc.Paths {
		for method, op := range item {
			operations++
			if ids[op.OperationID] {
				t.Errorf("operation id %s is there twice", op.OperationID)
			}
			ids[op.OperationID] = true
			if op.Responses["200"] == nil || op.Responses["500"] == nil {
				t.Errorf("%s %s lacks responses", method, path)
			}
			if w := do(a, strings.ToUpper(method), target(path), ""); w.Code == 405 || strings.Contains(w.Body.String(), "There is no") {
				t.Errorf("the document has %s %s, the mux does not: %d", method, path, w.Code)
			}
		}
	}
	for _, rt := range a.routes() {
		op, ok := doc.Paths[strings.ReplaceAll(rt.path, "...}", "}")][strings.ToLower(rt.method)]
		if !ok {
			t.Errorf("the document lacks %s %s", rt.method, rt.path)
		}
		if (len(op.Security) > 0) != (rt.may != open) {
			t.Errorf("%s %s: security %v", rt.method, rt.path, op.Security)
		}
	}
	if operations != len(a.routes()) {
		t.Errorf("%d operations for %d routes", operations, len(a.routes()))
	}
}

func TestDocumentTellsTheTruthAboutATask(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake())
	var doc openAPI
	if err := json.Unmarshal(do(a, "GET", "/openapi.json", "").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	spec := doc.Components.Schemas["Spec"]
	if !slices.Equal(spec.Required, []string{"type"}) || spec.AdditionalProperties != false {
		t.Errorf("Spec requires %v, further fields %v", spec.Required, spec.AdditionalProperties)
	}
	if p := string(spec.Properties["priority"]); !strings.Contains(p, `"default":1`) {
		t.Errorf("priority: %s", p)
	}
	task := doc.Components.Schemas["TaskDetail"]
	if p := string(task.Properties["started"]); !strings.Contains(p, `"null"`) || !strings.Contains(p, "date-time") {
		t.Errorf("started: %s", p)
	}
	if task.AdditionalProperties == false {
		t.Error("a reply could never grow")
	}
	if doc.Paths["/api/tasks/{id}/cancel"]["post"].RequestBody.Required || !doc.Paths["/api/tasks"]["post"].RequestBody.Required {
		t.Error("which bodies are required is wrong")
	}
	if _, ok := doc.Components.Schemas["Event"].Properties["log_index"]; !ok {
		t.Error("the events are not described")
	}
}
