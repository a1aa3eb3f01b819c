package httpapi

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestKeysAreShownOnce(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, logs := newAPI(t, f)
	for _, c := range []struct {
		method, path, body, key string
		status                  int
		says                    string
	}{
		{"POST", "/api/keys", `{"role":"submitter","project":"vision","name":"ci","ttl_seconds":3600}`, adminKey, 200, `"api_key":"lmk_k1_secret"`},
		{"POST", "/api/keys", `{"role":"admin"}`, operatorKey, 403, "admin"},
		{"POST", "/api/keys", `{}`, adminKey, 400, "Missing required field: role"},
		{"POST", "/api/keys", `{"role":"node"}`, adminKey, 400, "not one of"},
		{"POST", "/api/keys", `{"role":"submitter"}`, adminKey, 400, "needs one"},
		{"POST", "/api/keys", `{"role":"submitter","project":"a b"}`, adminKey, 400, "project"},
		{"POST", "/api/keys", `{"role":"submitter","project":"` + strings.Repeat("p", 65) + `"}`, adminKey, 400, "project"},
		{"POST", "/api/keys", `{"role":"admin","ttl_seconds":-1}`, adminKey, 400, "ttl_seconds"},
		{"POST", "/api/keys", `{"role":"admin","ttl_seconds":1e300}`, adminKey, 400, "ttl_seconds"},
		{"POST", "/api/keys", `{"role":"admin","name":"a\u0007b"}`, adminKey, 400, "name"},
		{"POST", "/api/keys", `{"role":"admin","x":1}`, adminKey, 400, "Unknown field: x"},
		{"GET", "/api/keys", "", adminKey, 200, `"id":"k1","name":"ci","role":"submitter","project":"vision","by":"key-admin","created":"2026-05-06T11:00:00.123456Z","expires":"2026-05-06T12:00:00.123456Z","revoked":null`},
		{"GET", "/api/keys", "", observerKey, 403, ""},
		{"DELETE", "/api/keys/none", "", adminKey, 404, "Key not found"},
		{"DELETE", "/api/keys/k1", "", adminKey, 200, "revoked"},
		{"GET", "/api/keys", "", adminKey, 200, `"revoked":"2026-05-06T11:00:00.123456Z"`},
		{"GET", "/api/invites", "", adminKey, 200, `{"invites":[{"id":"i1","role":"node","expires":"2026-05-06T11:00:00.123456Z","uses":1,"by":"ada"}]}`},
		{"DELETE", "/api/invites/i1", "", adminKey, 200, "revoked"},
		{"DELETE", "/api/invites/i2", "", adminKey, 404, "Invite not found"},
		{"POST", "/api/tokens", "", observerKey, 200, `{"token":"a.b.c","role":"observer","expires":"2026-05-06T11:00:00.123456Z"}`},
		{"POST", "/api/tokens", `{"worker_id":"w1"}`, adminKey, 200, `"role":"worker","worker_id":"w1"`},
		{"POST", "/api/tokens", `{"worker_id":"w1"}`, workerKey, 200, `"role":"worker","worker_id":"w1"`},
		{"POST", "/api/tokens", ``, workerKey, 400, "worker_id"},
		{"POST", "/api/tokens", `{"worker_id":"w1"}`, operatorKey, 403, "worker"},
		{"POST", "/api/tokens", `{"worker_id":"a b"}`, adminKey, 400, "worker_id"},
		{"POST", "/api/tokens", `{"worker_id":"w1"}`, tokenKey, 403, "the API key itself"},
	} {
		w := do(a, c.method, c.path, c.body, "X-API-Key", c.key)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s %s with %s: %d %s", c.method, c.path, c.body, c.key, w.Code, w.Body)
		}
		if made := c.status == 200 && c.method == "POST" && c.path == "/api/keys"; strings.Contains(w.Body.String(), "secret") != made || strings.Contains(w.Body.String(), "proof") {
			t.Errorf("%s %s shows a secret: %s", c.method, c.path, w.Body)
		} else if made && w.Header().Get("Cache-Control") != "no-store" {
			t.Error("what holds a key may be cached")
		}
	}
	if strings.Contains(logs.String(), "lmk_") {
		t.Errorf("the log holds a key: %s", logs)
	}
}

// TestNoLogAndNoAnswerHoldsAKey has each route fail by our fault, with a log that holds everything.
func TestNoLogAndNoAnswerHoldsAKey(t *testing.T) {
	t.Parallel()
	f := newFake()
	close(f.more)
	f.down = errors.New("the disk is on fire")
	logs := &syncBuffer{}
	a, _ := newAPI(t, f, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	failed := 0
	for _, rt := range a.routes() {
		for _, credential := range []string{adminKey, workerKey, tokenKey, "key-revoked", "key-unknowable", "key-of-nobody"} {
			for _, header := range []string{"X-API-Key", "Authorization"} {
				value := credential
				if header == "Authorization" {
					value = "Bearer " + credential
				}
				w := do(a, rt.method, target(rt.path), "", "X-API-Key", "", header, value)
				if w.Code == 500 {
					failed++
				}
				if strings.Contains(w.Body.String(), credential) {
					t.Errorf("%s %s answers with the credential: %s", rt.method, rt.path, w.Body)
				}
			}
		}
	}
	if text := logs.String(); failed == 0 || !strings.Contains(text, "the disk is on fire") || !strings.Contains(text, "answered") {
		t.Fatalf("%d requests failed, and the log says %s", failed, text)
	}
	for line := range strings.Lines(logs.String()) {
		if strings.Contains(line, "key-") || strings.Contains(line, "token-") {
			t.Errorf("the log holds a credential: %s", line)
		}
	}
}
