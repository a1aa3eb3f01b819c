package content

import (
	"encoding/binary"

	"labmesh"
)

// magic begins every manifest and carries the version of the format.
const magic = "labmesh tree 1\r\n"

const (
	headLen  = len(magic) + 4 + 8 + 8 + 4 // magic, files, bytes, index, chunks
	chunkLen = HashBytes + 4
)

// Manifest says what a tree is made of. Its canonical bytes are the tree's
// identity: the same tree has the same manifest everywhere.
//
// The stream of a tree is the bytes of its files, in the order of the index,
// and then the index. The chunks are that stream, cut.
type Manifest struct {
	Files  int     // entries of the index: files, links and empty directories
	Bytes  int64   // of the files
	Index  int64   // bytes of the index
	Chunks []Chunk // in order; the same chunk may come twice
}

// ID is the tree's content id.
func (m *Manifest) ID() string { return Sum(m.Encode()).String() }

// Encode makes the canonical bytes.
func (m *Manifest) Encode() []byte {
	b := make([]byte, 0, headLen+len(m.Chunks)*chunkLen)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, uint32(m.Files))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Bytes))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Index))
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Chunks)))
	for _, c := range m.Chunks {
		b = append(b, c.Hash[:]...)
		b = binary.BigEndian.AppendUint32(b, c.Size)
	}
	return b
}

// DecodeManifest reads canonical bytes and nothing else: what it accepts,
// Encode gives back.
func DecodeManifest(b []byte) (*Manifest, error) {
	switch {
	case len(b) > ManifestBytesMax:
		return nil, labmesh.Refuse(labmesh.TooLarge, "manifest: %d bytes are more than %d", len(b), ManifestBytesMax)
	case len(b) < headLen || string(b[:len(magic)]) != magic:
		return nil, bad("manifest: it does not begin as one")
	}
	files := binary.BigEndian.Uint32(b[len(magic):])
	size := binary.BigEndian.Uint64(b[len(magic)+4:])
	index := binary.BigEndian.Uint64(b[len(magic)+12:])
	chunks := binary.BigEndian.Uint32(b[len(magic)+20:])
	body := b[headLen:]
	switch {
	case uint64(len(body)) != uint64(chunks)*uint64(chunkLen):
		return nil, bad("manifest: %d bytes are not %d chunks", len(body), chunks)
	case files > FilesLimit:
		return nil, bad("manifest: %d files are more than %d", files, FilesLimit)
	case index > IndexBytesMax:
		return nil, bad("manifest: an index of %d bytes is more than %d", index, IndexBytesMax)
	}
	m := &Manifest{Files: int(files), Bytes: int64(size), Index: int64(index), Chunks: make([]Chunk, chunks)}
	var sum uint64
	for i := range m.Chunks {
		c := &m.Chunks[i]
		c.Hash = Hash(body)
		c.Size = binary.BigEndian.Uint32(body[HashBytes:])
		if c.Size == 0 || c.Size > ChunkBytesMax {
			return nil, bad("manifest: chunk %d has %d bytes, and 1 to %d are allowed", i, c.Size, ChunkBytesMax)
		}
		sum += uint64(c.Size)
		body = body[chunkLen:]
	}
	if size > sum || size+index != sum { // no overflow: index is small, and size is then below sum
		return nil, bad("manifest: the chunks have %d bytes, files and index %d and %d", sum, size, index)
	}
	return m, nil
}

// Size is the bytes of all chunks: the stream's length.
func (m *Manifest) Size() int64 { return m.Bytes + m.Index }

// Part are the chunks that hold a part of the stream.
func (m *Manifest) Part(offset, size int64) (out []Chunk) {
	var at int64
	for _, c := range m.Chunks {
		end := at + int64(c.Size)
		if at < offset+size && end > offset {
			out = append(out, c)
		}
		at = end
	}
	return out
}

// Unique are the chunks, each once, in the order in which they first come.
func (m *Manifest) Unique() []Chunk {
	seen := make(map[Hash]struct{}, len(m.Chunks))
	out := make([]Chunk, 0, len(m.Chunks))
	for _, c := range m.Chunks {
		if _, twice := seen[c.Hash]; twice {
			continue
		}
		seen[c.Hash] = struct{}{}
		out = append(out, c)
	}
	return out
}

func bad(format string, args ...any) error { return labmesh.Refuse(labmesh.Invalid, format, args...) }
