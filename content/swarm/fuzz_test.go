package swarm_test

import (
	"context"
	"net"
	"testing"
	"time"

	"labmesh/content"
)

// FuzzServe says anything to a node that serves, which must neither fall nor
// keep the stream once its peer has left.
func FuzzServe(f *testing.F) {
	w := newNetwork()
	src, n := w.add(f, "source", 0), w.add(f, "n", 0)
	id := src.tree(f, 1, 300_000)
	h, _ := content.ParseID(id)
	for _, s := range []string{"M", "C", "P", "C" + string(h[:]) + "w\x00\x00\x00\x04\x00\x00\x00\x00", "C" + string(h[:]) + "a\x00\x00\x00\x00x\x00\x00\x00\x04\x00\x00\x00\x00d\x00\x00\x00\x04\x00\x00\x00\x00"} {
		if len(s) == 1 {
			s += string(h[:])
		}
		f.Add([]byte("LMS1" + s))
	}
	f.Fuzz(func(t *testing.T, say []byte) {
		c, err := n.Dial(t.Context(), "source")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			buf := make([]byte, 1<<16)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
			}
		}()
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.Write(say)
		_ = c.Close()
	})
}

// FuzzFetch answers a fetch with anything. It must not fall, and take nothing
// that is wrong.
func FuzzFetch(f *testing.F) {
	w := newNetwork()
	src := w.add(f, "source", 0)
	id := src.tree(f, 1, 300_000)
	f.Add([]byte("b\x00\x00\x00\x02\x01\x00n\x00\x00\x00\x04\x00\x00\x00\x01c\x00\x00\x00\x05\x00\x00\x00\x00x"))
	f.Add([]byte("b\x00\x00\x00\x02\xff\x00g\x00\x00\x00\x04\x00\x00\x00\x00a\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, say []byte) {
		w := newNetwork()
		n := w.add(t, "n", 0)
		m, err := src.store.Manifest(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.store.PutManifest(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		evil := &node{net: w, id: "evil", incoming: make(chan net.Conn)}
		w.mu.Lock()
		w.nodes["evil"], w.order = evil, append(w.order, "evil")
		w.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		go func() {
			for {
				select {
				case c := <-evil.incoming:
					go func() {
						buf := make([]byte, 1<<16)
						for {
							if _, err := c.Read(buf); err != nil {
								return
							}
						}
					}()
					go func() {
						_, _ = c.Write(say)
						_ = c.Close()
					}()
				case <-ctx.Done():
					return
				}
			}
		}()
		if err := n.swarm.Fetch(ctx, id); err == nil && !n.store.Complete(id) {
			t.Error("it was done without the tree")
		}
	})
}
