package httpapi

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"labmesh"
)

func TestWrongKeysAreLimitedByAddress(t *testing.T) {
	t.Parallel()
	var k wrongKeys
	now := time.Unix(1000, 0)
	for i := range wrongBurst + 10 {
		if err := k.take("192.0.2.1:1000", now); (err == nil) != (i < wrongBurst) {
			t.Fatalf("wrong key %d: %v", i, err)
		}
	}
	if err := k.take("192.0.2.2:1000", now); err != nil {
		t.Errorf("another address: %v", err)
	}
	if err := k.take("192.0.2.1:2000", now.Add(time.Second)); err != nil {
		t.Errorf("a second later: %v", err)
	}
	for i := range 3 * wrongAddrsMax {
		_ = k.take(string(rune(i))+":1", now)
	}
	if len(k.from) > wrongAddrsMax+1 {
		t.Errorf("%d addresses are remembered", len(k.from))
	}
}

func TestGoodKeysPassWhereWrongOnesAreLimited(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake())
	ask := func(key string) int {
		r := httptest.NewRequest("GET", "/api/tasks", nil)
		r.Header.Set("X-API-Key", key)
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		return w.Code
	}
	last := 0
	for range 2 * wrongBurst {
		last = ask("wrong")
	}
	if last != http.StatusTooManyRequests || ask(adminKey) != http.StatusOK {
		t.Errorf("after many wrong keys: %d; a good one: %d", last, ask(adminKey))
	}
}

// TestPagesOfOtherSitesDoNothing: a browser says where a page is from.
func TestPagesOfOtherSitesDoNothing(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake())
	for origin, want := range map[string]bool{"": true, "http://localhost:8080": true, "http://evil.example": false, "null": false, "http://localhost:8081": false} {
		r := httptest.NewRequest("POST", "http://localhost:8080/api/seal/rotate", nil)
		r.Header.Set("X-API-Key", adminKey)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		if (w.Code == http.StatusOK) != want || !want && object(t, w)["reason"] != string(labmesh.Denied) {
			t.Errorf("origin %q: %d %s", origin, w.Code, w.Body)
		}
	}
}
