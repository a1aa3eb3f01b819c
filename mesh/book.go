package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"labmesh"
)

// Limits on the peer book.
const (
	bookNodesMax  = 4096
	bookAddrsMax  = 16 // of one node
	bookBytesMax  = 16 << 20
	bookSaveAfter = 500 * time.Millisecond // changes that come together are one write
)

// book remembers where nodes could be reached, over restarts. What is in it may
// be stale: it is where a search begins, never a verdict.
type book struct {
	path    string // "" keeps it in memory
	changed chan struct{}

	mu    sync.Mutex
	pages map[labmesh.NodeID]page
	dirty bool
}

// page is what the book holds of one node, newest address first.
type page struct {
	Addrs []string  `json:"addrs"`
	Seen  time.Time `json:"seen"` // when an address was last written down
}

// bookFile is the book on disk.
type bookFile struct {
	Version int                     `json:"version"`
	Peers   map[labmesh.NodeID]page `json:"peers"`
}

const bookVersion = 1

// openBook reads the book at path. A book that cannot be read is begun anew:
// the error says so, and the book can be used.
func openBook(path string) (*book, error) {
	b := &book{path: path, changed: make(chan struct{}, 1), pages: map[labmesh.NodeID]page{}}
	if path == "" {
		return b, nil
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, fmt.Errorf("open peer book: %w", err)
	}
	if info.Size() > bookBytesMax {
		return b, fmt.Errorf("open peer book %s: it has %d bytes, more than %d", path, info.Size(), bookBytesMax)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return b, fmt.Errorf("open peer book: %w", err)
	}
	var f bookFile
	if err := json.Unmarshal(data, &f); err != nil {
		return b, fmt.Errorf("open peer book %s: %w", path, err)
	}
	for node, p := range f.Peers {
		b.put(node, p.Addrs, p.Seen)
	}
	b.dirty = false
	return b, nil
}

// merge is old with the fresh addresses before it, without repeats, bounded.
func merge(fresh, old []string, limit int) []string {
	merged := make([]string, 0, limit)
	for _, list := range [][]string{fresh, old} {
		for _, a := range list {
			if len(merged) < limit && len(a) <= textBytesMax && !slices.Contains(merged, a) {
				merged = append(merged, a)
			}
		}
	}
	return merged
}

// put writes down addresses of a node, newest first.
func (b *book) put(node labmesh.NodeID, addrs []string, now time.Time) {
	if len(addrs) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, there := b.pages[node]
	merged := merge(addrs, old.Addrs, bookAddrsMax)
	if there && slices.Equal(merged, old.Addrs) {
		return
	}
	if !there && len(b.pages) >= bookNodesMax {
		b.dropOldest()
	}
	b.pages[node] = page{Addrs: merged, Seen: now}
	b.dirty = true
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

func (b *book) dropOldest() {
	var oldest labmesh.NodeID
	for node, p := range b.pages {
		if oldest == "" || p.Seen.Before(b.pages[oldest].Seen) {
			oldest = node
		}
	}
	delete(b.pages, oldest)
}

// addrs are where a node could be reached, newest first.
func (b *book) addrs(node labmesh.NodeID) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.pages[node].Addrs)
}

// forget tears a node's page out.
func (b *book) forget(node labmesh.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.pages[node]; there {
		delete(b.pages, node)
		b.dirty = true
	}
}

// save writes the book down if it has changed.
func (b *book) save() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.path == "" || !b.dirty {
		return nil
	}
	data, err := json.MarshalIndent(bookFile{Version: bookVersion, Peers: b.pages}, "", "  ")
	if err != nil {
		return fmt.Errorf("save peer book: %w", err)
	}
	if err := writeFile(b.path, data); err != nil {
		return fmt.Errorf("save peer book: %w", err)
	}
	b.dirty = false
	return nil
}

// run saves the book a moment after it has changed, until ctx ends.
func (b *book) run(ctx context.Context, log *slog.Logger) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.changed:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(bookSaveAfter):
		}
		if err := b.save(); err != nil {
			log.WarnContext(ctx, "peer book not saved", "err", err)
		}
	}
}
