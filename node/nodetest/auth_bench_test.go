package nodetest_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"labmesh"
	"labmesh/consensus"
	"labmesh/node"
	"labmesh/node/httpapi"
	"labmesh/store/memory"
)

// BenchmarkAuthenticate is what it costs to find out who calls, alone and as part
// of the cheapest request, beside the same request that asks nobody.
func BenchmarkAuthenticate(b *testing.B) {
	n, err := node.Open(b.Context(), node.Config{
		DataDir: b.TempDir(), NoWork: true, MeshListen: []string{"/ip4/127.0.0.1/tcp/0"}, Logger: slog.New(slog.DiscardHandler),
		Parts: node.Parts{Backend: memory.New(), Log: consensus.NewMemory(), NoHTTP: true, NoDiscovery: true},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err := n.Close(); err != nil {
			b.Error(err)
		}
	})
	<-n.Ready()
	svc := n.Service()
	var key string
	for range 1000 { // one of many
		if key, _, err = svc.CreateKey(b.Context(), httpapi.Caller{}, httpapi.KeyRequest{Role: labmesh.RoleObserver}); err != nil {
			b.Fatal(err)
		}
	}
	caller, err := svc.Authenticate(key)
	if err != nil {
		b.Fatal(err)
	}
	token, err := svc.MintToken(b.Context(), caller, "")
	for end := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(end); token, err = svc.MintToken(b.Context(), caller, "") {
		time.Sleep(10 * time.Millisecond) // the leader has not drawn the first key yet
	}
	if err != nil {
		b.Fatal(err)
	}
	for name, credential := range map[string]string{"key": key, "token": token.Text, "wrong-key": key[:len(key)-2] + "xx", "wrong-token": token.Text[:len(token.Text)-2] + "xx"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := svc.Authenticate(credential); (err == nil) != (name == "key" || name == "token") {
					b.Fatal(err)
				}
			}
		})
	}
	for name, credential := range map[string]string{"/healthz": "", "/openapi.json": key} {
		b.Run("request"+name, func(b *testing.B) {
			for b.Loop() {
				r := httptest.NewRequest("GET", name, nil)
				r.Host = "localhost"
				r.Header.Set("X-API-Key", credential)
				w := httptest.NewRecorder()
				if n.Handler().ServeHTTP(w, r); w.Code != 200 {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}
