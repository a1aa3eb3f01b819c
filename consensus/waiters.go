package consensus

import (
	"sync"
	"unsafe"

	"labmesh"
)

// waiters are those who wait for the state to reach an index. Each is woken
// once, when its own index is there, however many there are.
type waiters struct {
	mu   sync.Mutex
	wait map[chan struct{}]uint64
}

// add registers a waiter for index. The channel is closed when it is reached.
func (w *waiters) add(index uint64) chan struct{} {
	ch := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wait == nil {
		w.wait = map[chan struct{}]uint64{}
	}
	w.wait[ch] = index
	return ch
}

// remove forgets a waiter that has given up.
func (w *waiters) remove(ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.wait, ch)
}

// reached wakes all who wait for index or less.
func (w *waiters) reached(index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch, want := range w.wait {
		if want <= index {
			close(ch)
			delete(w.wait, ch)
		}
	}
}

// decodedEntries are the entries that this node put into the log and has not
// applied yet, as decoded from the very bytes that went in. They spare the
// machine of a leader a second decoding; every other replica decodes the bytes.
// An entry is known by the memory that holds its bytes, which raft passes on as
// it is.
type decodedEntries struct {
	mu sync.Mutex
	by map[*byte]labmesh.Entry
}

func (d *decodedEntries) put(data []byte, e labmesh.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = map[*byte]labmesh.Entry{}
	}
	d.by[unsafe.SliceData(data)] = e
}

// take gives the entry out once.
func (d *decodedEntries) take(data []byte) (labmesh.Entry, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.by[unsafe.SliceData(data)]
	delete(d.by, unsafe.SliceData(data))
	return e, ok
}
