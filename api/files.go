package api

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"labmesh"
)

// Limits on uploads of bundles.
const (
	ChunkBytesMax    = 2 << 20  // one chunk
	ManifestBytesMax = 8 << 20  // the body of POST /api/bundles
	UploadBytesMax   = 64 << 20 // the body of POST /api/bundles/chunks
	HashesMax        = 10_000   // in POST /api/bundles/missing
)

// The media types of what is no JSON.
const (
	ManifestType = "application/vnd.labmesh.manifest"
	ChunksType   = "application/vnd.labmesh.chunks"
)

// MissingRequest is the body of POST /api/bundles/missing: the hashes of chunks,
// each a SHA-256 as 64 hexadecimal digits.
type MissingRequest struct {
	Chunks []string `json:"chunks"`
}

// MissingReply is the reply to POST /api/bundles/missing: those of the chunks
// that the node does not hold, and which it must be sent.
type MissingReply struct {
	Missing []string `json:"missing"`
}

// ChunksReply is the reply to POST /api/bundles/chunks.
type ChunksReply struct {
	Chunks int   `json:"chunks"`
	Bytes  int64 `json:"bytes"`
}

// Bundle is the reply to POST /api/bundles. ID is what a task names as its bundle.
type Bundle struct {
	ID    string `json:"id"`
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"`
}

// Artifacts is the reply to GET /api/tasks/{id}/artifacts: the files that an
// attempt left. Those below .labmesh/ are labmesh's own: the complete output and what
// its runner keeps.
type Artifacts struct {
	Task    labmesh.TaskID `json:"task_id"`
	Attempt int            `json:"attempt"` // 0 when no attempt left any
	Tree    string         `json:"tree"`    // their content id, "" when there are none
	Bytes   int64          `json:"bytes"`
	Files   []Artifact     `json:"files"`
}

// Artifact is one file of [Artifacts].
type Artifact struct {
	Path       string `json:"path"` // with slashes, from the work directory
	Bytes      int64  `json:"bytes"`
	Executable bool   `json:"executable,omitempty"`
	Link       string `json:"link,omitempty"`      // where a symbolic link leads; it stays inside the tree
	Directory  bool   `json:"directory,omitempty"` // an empty one
}

// AppendChunk appends a chunk to a body of POST /api/bundles/chunks: its size as
// four bytes, the highest first, and then itself.
func AppendChunk(body, chunk []byte) []byte {
	return append(binary.BigEndian.AppendUint32(body, uint32(len(chunk))), chunk...)
}

// ReadChunk reads the next chunk of such a body into buf, which has room for
// [ChunkBytesMax]. It returns io.EOF at the end of the body.
func ReadChunk(r io.Reader, buf []byte) ([]byte, error) {
	var head [4]byte
	switch _, err := io.ReadFull(r, head[:]); {
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case err != nil:
		return nil, fmt.Errorf("read the size of a chunk: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > ChunkBytesMax {
		return nil, labmesh.Refuse(labmesh.Invalid, "a chunk of %d bytes: 1 to %d are allowed", n, ChunkBytesMax)
	}
	switch m, err := io.ReadFull(r, buf[:n]); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, labmesh.Refuse(labmesh.Invalid, "the body broke off in a chunk, after %d of its %d bytes", m, n)
	case err != nil:
		return nil, fmt.Errorf("read a chunk: %w", err)
	}
	return buf[:n], nil
}
