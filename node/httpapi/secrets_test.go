package httpapi

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"labmesh"
)

func TestSecretsAreSetListedAndRemoved(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, logs := newAPI(t, f)
	const value = "hunter22 \"ö\"\nand more"
	body, _ := json.Marshal(map[string]string{"value": value})
	for _, c := range []struct {
		method, path, body, key string
		status                  int
		says                    string
	}{
		{"PUT", "/api/secrets/TOKEN", string(body), adminKey, 200, `"TOKEN"`},
		{"PUT", "/api/secrets/TOKEN", string(body), operatorKey, 403, "admin"},
		{"GET", "/api/secrets", "", operatorKey, 403, "admin"},
		{"DELETE", "/api/secrets/TOKEN", "", workerKey, 403, "admin"},
		{"PUT", "/api/secrets/TOKEN", `{"value":""}`, adminKey, 400, "empty"},
		{"PUT", "/api/secrets/TOKEN", `{}`, adminKey, 400, "empty"},
		{"PUT", "/api/secrets/TOKEN", `{"value":7}`, adminKey, 400, "value"},
		{"PUT", "/api/secrets/TOKEN", `{"value":"hunter23","x":1}`, adminKey, 400, "Unknown field: x"},
		{"PUT", "/api/secrets/TOKEN", `{"value":"hunter23`, adminKey, 400, "Malformed"},
		{"PUT", "/api/secrets/TOKEN", `{"value":"a\u0000b"}`, adminKey, 400, "NUL"},
		{"PUT", "/api/secrets/TOKEN", fmt.Sprintf(`{"value":%q}`, strings.Repeat("x", labmesh.SecretBytesMax+1)), adminKey, 400, "65536"},
		{"PUT", "/api/secrets/1TOKEN", string(body), adminKey, 400, "not a name"},
		{"PUT", "/api/secrets/A-B", string(body), adminKey, 400, "not a name"},
		{"PUT", "/api/secrets/LABMESH_API_KEY", string(body), adminKey, 400, "LABMESH_"},
		{"PUT", "/api/secrets/" + strings.Repeat("N", 257), string(body), adminKey, 400, "not a name"},
		{"POST", "/api/secrets/TOKEN", string(body), adminKey, 405, "DELETE, PUT"},
		{"GET", "/api/secrets/TOKEN", "", adminKey, 405, "DELETE, PUT"}, // nobody is shown one
		{"GET", "/api/secrets", "", adminKey, 200, `{"secrets":[{"name":"TOKEN","by":"key-admin","put":"2026-05-06T11:00:00.123456Z"}]}`},
		{"DELETE", "/api/secrets/NONE", "", adminKey, 404, "Secret not found"},
		{"DELETE", "/api/secrets/A%20B", "", adminKey, 404, "Secret not found"},
		{"DELETE", "/api/secrets/TOKEN", "", adminKey, 200, "removed"},
		{"DELETE", "/api/secrets/TOKEN", "", adminKey, 404, "Secret not found"},
		{"GET", "/api/secrets", "", adminKey, 200, `{"secrets":[]}`},
	} {
		if c.path == "/api/secrets" && c.status == 200 && strings.Contains(c.says, "TOKEN") && f.secret["TOKEN"].Value != value {
			t.Errorf("kept is %q", f.secret["TOKEN"].Value)
		}
		w := do(a, c.method, c.path, c.body, "X-API-Key", c.key)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %.40s %.40s: %d %s, want %d %q", c.method, c.path, c.body, w.Code, w.Body, c.status, c.says)
		}
		if strings.Contains(w.Body.String(), "hunter2") {
			t.Errorf("%s %s answers with the value: %s", c.method, c.path, w.Body)
		}
	}
	if strings.Contains(logs.String(), "hunter2") {
		t.Errorf("the log holds the value: %s", logs)
	}
}

// TestASecretIsInNoLog: what goes wrong inside shows no value, at any level.
func TestASecretIsInNoLog(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.down = fmt.Errorf("something broke: %v", labmesh.PutSecret{Secret: labmesh.Secret{Name: "TOKEN", Value: "hunter22"}})
	logs := &syncBuffer{}
	a, _ := newAPI(t, f, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	w := do(a, "PUT", "/api/secrets/TOKEN", `{"value":"hunter22"}`)
	if w.Code != 500 || !strings.Contains(logs.String(), "something broke") {
		t.Errorf("%d %s; log %s", w.Code, w.Body, logs)
	}
	if strings.Contains(w.Body.String()+logs.String(), "hunter22") {
		t.Errorf("%s; log %s", w.Body, logs)
	}
}
