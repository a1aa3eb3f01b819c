package swarm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/content"
	"labmesh/content/swarm"
)

const mega = 1 << 20

// fetchers start so many nodes that fetch a tree at the same time, and return
// how long the slowest took.
func fetchAll(t *testing.T, nodes []*node, id string) time.Duration {
	t.Helper()
	began := time.Now()
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			if err := n.swarm.Fetch(t.Context(), id); err != nil {
				t.Errorf("%s: %v", n.id, err)
			} else if !n.store.Complete(id) {
				t.Errorf("%s has not all of it", n.id)
			}
		})
	}
	all.Wait()
	return time.Since(began)
}

func whole(t *testing.T, n *node, id string) {
	t.Helper()
	if err := n.store.Unpack(t.Context(), id, t.TempDir(), content.Limits{}); err != nil {
		t.Errorf("%s: %v", n.id, err)
	}
}

func TestOneFetchesFromOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork()
		a, b := w.add(t, "a", 0), w.add(t, "b", 0)
		id := a.tree(t, 1, 5*mega)
		fetchAll(t, []*node{b}, id)
		whole(t, b, id)
		before := b.swarm.Traffic()
		fetchAll(t, []*node{b}, id)
		if after := b.swarm.Traffic(); after != before || after.WastedBytes > 0 {
			t.Errorf("a second fetch moved something: %+v", after)
		}
	})
}

// Five nodes on lines of 200 Mbit/s: five copies from the source would take five
// times as long as one.
func TestManyFetchersShareTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const line, size = 25 * mega, 30 * mega
		w := newNetwork()
		src := w.add(t, "source", line)
		var nodes []*node
		for i := range 5 {
			nodes = append(nodes, w.add(t, labmesh.NodeID(fmt.Sprint("n", i)), line))
		}
		id := src.tree(t, 1, size)
		took := fetchAll(t, nodes, id)
		sent := float64(src.swarm.Traffic().SentBytes) / size
		var wasted int64
		for _, n := range nodes {
			whole(t, n, id)
			wasted += n.swarm.Traffic().WastedBytes
		}
		copies := 5 * time.Second * size / line
		t.Logf("took %s, %.1f times faster than %s for copies; the source sent %.2f of the tree; %.1f%% came twice",
			took, copies.Seconds()/took.Seconds(), copies, sent, float64(wasted)/size/5*100)
		if copies < 3*took {
			t.Errorf("it took %s, and copies %s", took, copies)
		}
		if sent > 1.6 {
			t.Errorf("the source sent %.2f times the tree", sent)
		}
	})
}

func TestASourceThatLeavesIsNotMissedWhenTheRestIsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const line, size = 10 * mega, 20 * mega
		w := newNetwork()
		src, other, n := w.add(t, "source", line), w.add(t, "other", line), w.add(t, "n", line)
		id := src.tree(t, 1, size)
		fetchAll(t, []*node{other}, id)
		go func() {
			time.Sleep(500 * time.Millisecond)
			src.leave()
		}()
		fetchAll(t, []*node{n}, id)
		whole(t, n, id)
	})
}

func TestAFetchGoesOnWhereItWasBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const line, size = 10 * mega, 20 * mega
		w := newNetwork()
		src, n := w.add(t, "source", line), w.add(t, "n", line)
		id := src.tree(t, 1, size)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := n.swarm.Fetch(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("broken off: %v", err)
		}
		if got := n.swarm.Traffic().ReceivedBytes; got < 5*mega || got > 11*mega {
			t.Errorf("after a second it has %d bytes", got)
		}
		fetchAll(t, []*node{n}, id)
		whole(t, n, id)
		if tr := n.swarm.Traffic(); tr.ReceivedBytes > size+mega {
			t.Errorf("it fetched %d bytes", tr.ReceivedBytes)
		}
	})
}

func TestWhatNobodyHasIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork()
		w.add(t, "a", 0)
		n := w.add(t, "n", 0)
		began := time.Now()
		var others sync.WaitGroup
		for range 3 { // they wait for the same, and not one after the other
			others.Go(func() {
				if err := n.swarm.Fetch(t.Context(), content.Sum(nil).String()); labmesh.ReasonOf(err) != labmesh.Unavailable {
					t.Error(err)
				}
			})
		}
		err := n.swarm.Fetch(t.Context(), content.Sum(nil).String())
		others.Wait()
		if labmesh.ReasonOf(err) != labmesh.Unavailable || time.Since(began) > time.Minute {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if err := n.swarm.Fetch(t.Context(), "../x"); labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Error(err)
		}
	})
}

// A tree of which the source has only a part, and is gone before the rest came.
func TestAPartIsNotTheWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const line, size = 10 * mega, 20 * mega
		w := newNetwork()
		src, n := w.add(t, "source", line), w.add(t, "n", line)
		id := src.tree(t, 1, size)
		go func() {
			time.Sleep(time.Second)
			src.leave()
		}()
		if err := n.swarm.Fetch(t.Context(), id); labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Error(err)
		}
		if n.store.Complete(id) {
			t.Error("it says that it has all")
		}
	})
}

func TestWrongBytesAreNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork()
		src, liar, n := w.add(t, "source", 5*mega), w.add(t, "liar", 0), w.add(t, "n", 0)
		id := src.tree(t, 1, 10*mega)
		fetchAll(t, []*node{liar}, id)
		liar.spoil = func(p []byte) []byte {
			if len(p) < 100_000 {
				return p
			}
			p = append([]byte(nil), p...)
			p[99_999] ^= 1
			return p
		}
		fetchAll(t, []*node{n}, id)
		whole(t, n, id)
		if tr := n.swarm.Traffic(); tr.WastedBytes == 0 || tr.WastedBytes > 4*mega {
			t.Errorf("%+v", tr)
		}
		before := liar.swarm.Traffic()
		other := src.tree(t, 2, 5*mega)
		fetchAll(t, []*node{n}, other)
		if liar.swarm.Traffic() != before {
			t.Error("the liar was asked again")
		}
	})
}

// The last chunk must not wait for a node on a thin line.
func TestASlowPeerDoesNotHoldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 20 * mega
		w := newNetwork()
		src, slow, n := w.add(t, "source", 10*mega), w.add(t, "slow", mega/20), w.add(t, "n", 0)
		id := src.tree(t, 1, size)
		slow.up, slow.down = nil, nil
		fetchAll(t, []*node{slow}, id)
		thin := w.add(t, "thin", mega/20)
		slow.up = thin.up
		took := fetchAll(t, []*node{n}, id)
		t.Logf("took %s", took)
		if took > 5*time.Second { // 2 s from the source alone
			t.Errorf("it took %s", took)
		}
	})
}

func TestASilentPeerDoesNotHoldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork()
		src, mute, n := w.add(t, "source", 10*mega), w.add(t, "mute", 0), w.add(t, "n", 0)
		id := src.tree(t, 1, 20*mega)
		fetchAll(t, []*node{mute}, id)
		block := make(chan struct{})
		defer close(block)
		mute.spoil = func(p []byte) []byte {
			if len(p) > 50_000 {
				<-block
			}
			return p
		}
		if took := fetchAll(t, []*node{n}, id); took > 5*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// In a large mesh few nodes have a tree, and a fetch has streams to few.
func TestTheOneNodeThatHasItIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork()
		src := w.add(t, "source", 0)
		for i := range 40 {
			w.add(t, labmesh.NodeID(fmt.Sprint("n", i)), 0)
		}
		id := src.tree(t, 1, mega)
		n := w.nodes["n7"]
		if took := fetchAll(t, []*node{n}, id); took > time.Second {
			t.Errorf("it took %s", took)
		}
		m, err := src.store.Manifest(id)
		if err != nil {
			t.Fatal(err)
		}
		n = w.nodes["n8"] // which has the manifest, and knows nobody
		if _, err := n.store.PutManifest(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if took := fetchAll(t, []*node{n}, id); took > 20*time.Second {
			t.Errorf("without a hint it took %s", took)
		}
	})
}

func TestSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork()
		src := w.add(t, "source", 0)
		var nodes []*node
		for i := range 4 {
			nodes = append(nodes, w.add(t, labmesh.NodeID(fmt.Sprint("n", i)), 0))
		}
		nodes[0].leave()
		id := src.tree(t, 1, 3*mega)
		n, err := src.swarm.Spread(t.Context(), id, 2, 0)
		have := 0
		for _, x := range nodes {
			if x.store.Complete(id) {
				have++
			}
		}
		if err != nil || n != 2 || have < 2 {
			t.Errorf("%d, %v; %d nodes have it", n, err, have)
		}
		if n, err := src.swarm.Spread(t.Context(), id, 4, 0); n != 3 || labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Errorf("more than there are nodes: %d, %v", n, err)
		}
	})
}

// A node that has left without a word is passed over, and who is in a hurry does
// not wait for it at all.
func TestSpreadPastTheSilent(t *testing.T) {
	for _, c := range []struct {
		atOnce int
		most   time.Duration
	}{{1, 3500 * time.Millisecond}, {4, 500 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			w := newNetwork()
			src := w.add(t, "source", 10*mega)
			id := src.tree(t, 1, 3*mega)
			for i := range 3 {
				w.add(t, labmesh.NodeID(fmt.Sprint("gone", i)), 0).stop() // it takes no streams, and refuses none
			}
			n := w.add(t, "n", 10*mega)
			began := time.Now()
			if copies, err := src.swarm.Spread(t.Context(), id, 1, c.atOnce); copies != 1 || err != nil || !n.store.Complete(id) {
				t.Errorf("%d at once: %d, %v", c.atOnce, copies, err)
			}
			if took := time.Since(began); took > c.most {
				t.Errorf("%d at once: it took %s", c.atOnce, took)
			}
		})
	}
}

// To list a tree, or to read a part of it, only that is fetched.
func TestAPartIsFetchedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork()
		src, n := w.add(t, "source", 0), w.add(t, "n", 0)
		id := src.tree(t, 1, 20*mega)
		part := func(offset, size int64) {
			t.Helper()
			if err := n.swarm.FetchSome(t.Context(), id, func(m *content.Manifest) []content.Chunk { return m.Part(offset, size) }); err != nil {
				t.Fatal(err)
			}
		}
		m, err := src.store.Manifest(id)
		if err != nil {
			t.Fatal(err)
		}
		part(m.Bytes, m.Index)
		if files, err := n.store.List(t.Context(), id); err != nil || len(files) != 1 {
			t.Fatalf("%v, %v", files, err)
		}
		part(3*mega, 10)
		part(3*mega, 10) // is here
		r, _, err := n.store.OpenFile(t.Context(), id, "data")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Seek(3*mega, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			t.Error(err)
		}
		if tr := n.swarm.Traffic(); tr.ReceivedChunks > 3 || n.store.Complete(id) {
			t.Errorf("%d chunks came: %+v", tr.ReceivedChunks, tr)
		}
		fetchAll(t, []*node{n}, id)
		whole(t, n, id)
	})
}

// Two callers that want the same tree wait for one fetch.
func TestAFetchIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork()
		src, n := w.add(t, "source", 10*mega), w.add(t, "n", 0)
		id := src.tree(t, 1, 10*mega)
		first, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { _ = n.swarm.Fetch(first, id) })
		all.Go(func() {
			time.Sleep(300 * time.Millisecond)
			cancel()
		})
		fetchAll(t, []*node{n, n, n}, id)
		all.Wait()
		if tr := n.swarm.Traffic(); tr.ReceivedBytes > 11*mega {
			t.Errorf("%+v", tr)
		}
	})
}

// What an evil or broken peer says ends its stream and nothing else.
func TestNonsenseEndsAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork()
		src, n := w.add(t, "source", 0), w.add(t, "n", 0)
		id := src.tree(t, 1, mega)
		h, _ := content.ParseID(id)
		for name, say := range map[string]string{
			"nothing":       "",
			"other":         "GET / HTTP/1.1\r\n\r\n",
			"no request":    "LMS1?" + string(h[:]),
			"huge frame":    "LMS1C" + string(h[:]) + "w\xff\xff\xff\xff",
			"no such chunk": "LMS1C" + string(h[:]) + "w\x00\x00\x00\x04\x7f\xff\xff\xff",
			"odd list":      "LMS1C" + string(h[:]) + "w\x00\x00\x00\x03abc",
		} {
			c, err := n.Dial(t.Context(), "source")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = c.Write([]byte(say)) }()
			_ = c.SetReadDeadline(time.Now().Add(time.Minute))
			for buf := make([]byte, 1000); err == nil; {
				_, err = c.Read(buf)
			}
			var late interface{ Timeout() bool }
			if errors.As(err, &late) && late.Timeout() {
				t.Errorf("%s: the stream is still open", name)
			}
			_ = c.Close()
		}
		fetchAll(t, []*node{n}, id)
	})
}

var _ swarm.Streams = (*node)(nil)
