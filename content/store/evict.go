package store

import (
	"slices"
	"time"

	"labmesh"
	"labmesh/content"
)

// Pin keeps a tree that is here, or its parts that will come, from being
// evicted until release is called. The tree's manifest must be here.
func (s *Store) Pin(id string) (release func(), err error) {
	m, h, err := s.manifest(id)
	if err != nil {
		return nil, err
	}
	p := s.newPin()
	p.add(h)
	for _, c := range m.Chunks {
		p.add(c.Hash)
	}
	return p.release, nil
}

// pin is what one user of the store holds.
type pin struct {
	s      *Store
	hashes []content.Hash
}

func (s *Store) newPin() *pin { return &pin{s: s} }

func (p *pin) add(h content.Hash) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.pins[h]++
	p.hashes = append(p.hashes, h)
}

// release ends the pin. It is safe twice.
func (p *pin) release() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	for _, h := range p.hashes {
		if p.s.pins[h]--; p.s.pins[h] <= 0 {
			delete(p.s.pins, h)
		}
	}
	p.hashes = nil
}

// room makes room for a blob of size bytes, and refuses it where all that is
// there is in use.
func (s *Store) room(size int64) error {
	s.mu.Lock()
	full := s.bytes+size > s.cfg.BytesMax
	s.mu.Unlock()
	if !full {
		return nil
	}
	if left := s.evict(s.cfg.BytesMax/100*evictTo - size); left+size > s.cfg.BytesMax {
		return labmesh.Refuse(labmesh.Exhausted, "the store of this node is full: %d of %d bytes are in use, and %d more are needed: allow it more, or wait until tasks have ended",
			left, s.cfg.BytesMax, size)
	}
	return nil
}

// evict removes what was not used for longest and is not in use, until no more
// than goal bytes are left, and returns how many are.
func (s *Store) evict(goal int64) (left int64) {
	kept := s.inUse()
	s.mu.Lock()
	defer s.mu.Unlock()
	type candidate struct {
		hash content.Hash
		used time.Time
	}
	var list []candidate
	for h, b := range s.blobs {
		if _, pinned := s.pins[h]; !pinned && !kept[h] {
			list = append(list, candidate{h, b.used})
		}
	}
	slices.SortFunc(list, func(a, b candidate) int { return a.used.Compare(b.used) })
	for _, c := range list {
		if s.bytes <= goal {
			break
		}
		s.remove(c.hash)
	}
	return s.bytes
}

// shrink gives the disk some of what the store holds, because it is full.
func (s *Store) shrink() {
	s.mu.Lock()
	goal := s.bytes / 100 * evictTo
	s.mu.Unlock()
	s.evict(goal - content.ChunkBytesMax)
}

// inUse are the blobs of the trees that the owner of the store wants kept.
func (s *Store) inUse() map[content.Hash]bool {
	kept := map[content.Hash]bool{}
	if s.cfg.InUse == nil {
		return kept
	}
	for _, id := range s.cfg.InUse() {
		m, h, err := s.manifest(id)
		if err != nil {
			continue // nothing of it is here that could be used
		}
		kept[h] = true
		for _, c := range m.Chunks {
			kept[c.Hash] = true
		}
	}
	return kept
}
