package consensus

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Memory holds a replica's log in place of a disk. It outlives the replica, so
// that tests can restart one, and behaves like a disk where that matters: a write
// may take time, and is lost when the power goes before it is over.
type Memory struct {
	log   entryStore
	snaps *memorySnapshots
	disk  *memoryDisk
}

// NewMemory is an empty Memory.
func NewMemory() *Memory {
	d := &memoryDisk{entryStore: raft.NewInmemStore(), writing: make(chan struct{}, 1)}
	return &Memory{log: d, snaps: &memorySnapshots{disk: d, newest: new(memorySnapshot)}, disk: d}
}

// SyncTakes sets how long it takes until what is written outlives a power cut.
func (m *Memory) SyncTakes(d time.Duration) { m.disk.set(func() { m.disk.sync = d }) }

// Spoil changes the data of entries that are written from now on, as faulty
// memory would; nil ends that.
func (m *Memory) Spoil(change func([]byte) []byte) { m.disk.set(func() { m.disk.spoil = change }) }

// Hold lets no write be over until release is called, as of a process that stands still.
func (m *Memory) Hold() (release func()) {
	held := make(chan struct{})
	m.disk.set(func() { m.disk.held = held })
	return func() { close(held) }
}

// AckEarly makes it a disk that lies: it says at once that a write is over, which outlives a power
// cut only after d.
func (m *Memory) AckEarly(d time.Duration) { m.disk.set(func() { m.disk.early = d }) }

// PowerOff loses all that has not been synced. Of the entries that are under way a
// prefix stays, as long as keep(their number) says. Whatever is written from now on is refused.
func (m *Memory) PowerOff(keep func(n int) int) {
	m.disk.set(func() {
		m.disk.off, m.disk.keep = true, keep
		m.disk.forget()
	})
}

// PowerOn takes writes again.
func (m *Memory) PowerOn() { m.disk.set(func() { m.disk.off = false }) }

// Reboot is what was there when the power went, for the next life of the machine:
// the one before, which may not have ended yet, stays without power.
func (m *Memory) Reboot() *Memory {
	defer m.disk.turn()() // the write that was under way is over, too
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	d := &memoryDisk{entryStore: m.disk.entryStore, writing: make(chan struct{}, 1), sync: m.disk.sync, early: m.disk.early}
	return &Memory{log: d, snaps: &memorySnapshots{disk: d, newest: m.snaps.newest}, disk: d}
}

// errPowerOff is what a write meets that the power cut has overtaken.
var errPowerOff = errors.New("the power is off")

// memoryDisk is a disk of a Memory. Writes are synced one after the other.
type memoryDisk struct {
	entryStore
	writing chan struct{} // holds one token for a whole write: who waits for a mutex stops the time of a test

	mu    sync.Mutex
	sync  time.Duration
	off   bool
	keep  func(int) int
	spoil func([]byte) []byte
	held  <-chan struct{} // nil, or closed when writes go on
	early time.Duration
	acked []ackedEntry // early, oldest first
}

// ackedEntry is an entry that was acknowledged before it was on the disk.
type ackedEntry struct {
	index uint64
	at    time.Time
}

// forget loses what was acknowledged early and is not on the disk yet, and with it what is
// being written behind it. The caller holds mu.
func (d *memoryDisk) forget() {
	last, err := d.LastIndex()
	for _, a := range d.acked {
		if time.Since(a.at) < d.early && err == nil && a.index <= last {
			_ = d.entryStore.DeleteRange(a.index, last)
			d.keep = func(int) int { return 0 }
			break
		}
	}
	d.acked = nil
}

func (d *memoryDisk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// turn waits until no other write is under way.
func (d *memoryDisk) turn() (over func()) {
	d.writing <- struct{}{}
	return func() { <-d.writing }
}

// spoiled changes entries on their way to the disk, and to the state.
func (d *memoryDisk) spoiled(logs []*raft.Log) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range logs {
		if d.spoil != nil && l.Type == raft.LogCommand {
			l.Data = d.spoil(l.Data)
		}
	}
}

// write waits for the sync and then has put done with how many of n things outlive it, before the
// power can go.
func (d *memoryDisk) write(n int, put func(kept int) error) error {
	d.mu.Lock()
	wait, off, held := d.sync, d.off, d.held
	d.mu.Unlock()
	if off {
		return errPowerOff
	}
	if held != nil {
		<-held
	}
	if wait > 0 {
		time.Sleep(wait)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.off {
		return put(n)
	}
	if kept := min(max(d.keep(n), 0), n); kept > 0 {
		return errors.Join(errPowerOff, put(kept))
	}
	return errPowerOff
}

// StoreLog writes one entry.
func (d *memoryDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes entries.
func (d *memoryDisk) StoreLogs(logs []*raft.Log) error {
	defer d.turn()()
	return d.write(len(logs), func(kept int) error {
		for _, l := range logs[:kept] {
			if d.early > 0 {
				d.acked = append(d.acked, ackedEntry{l.Index, time.Now()})
			}
		}
		return d.entryStore.StoreLogs(logs[:kept])
	})
}

// DeleteRange drops entries.
func (d *memoryDisk) DeleteRange(first, last uint64) error {
	defer d.turn()()
	return d.write(1, func(int) error { return d.entryStore.DeleteRange(first, last) })
}

// Set writes a value.
func (d *memoryDisk) Set(key, val []byte) error {
	defer d.turn()()
	return d.write(1, func(int) error { return d.entryStore.Set(key, val) })
}

// SetUint64 writes a number.
func (d *memoryDisk) SetUint64(key []byte, val uint64) error {
	defer d.turn()()
	return d.write(1, func(int) error { return d.entryStore.SetUint64(key, val) })
}
