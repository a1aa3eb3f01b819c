package leaf

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"labmesh"
)

// The protocol. Both sides send frames: a length (4 bytes, big endian) and that
// many bytes of JSON. The leaf begins with a hello and then sends requests; the
// replica sends news.
const (
	frameBytesMax = 2 * labmesh.EntryBytesMax // commands are at most an entry, in base64
	newsBytes     = 1 << 20                   // tasks of more bytes together go in several frames
)

// hello is the first thing that a leaf says.
type hello struct {
	Worker  labmesh.WorkerID `json:"worker_id,omitempty"` // "" on a leaf that takes no work
	Seen    uint64           `json:"seen"`                // the newest log index that the leaf has seen
	Members uint64           `json:"members"`             // the newest log index of a member that it knows
}

// request asks for commands to be put into the log or, without any, for the trees of files that are in use.
type request struct {
	ID       uint64 `json:"id"` // counts up on one stream
	Commands []byte `json:"commands,omitempty"`
}

// answer is what became of a request.
type answer struct {
	ID      uint64          `json:"id"`
	Receipt labmesh.Receipt `json:"receipt"`
	Trees   []string        `json:"trees,omitempty"`
	Refused *labmesh.Error  `json:"refused,omitempty"`
}

// news is what a replica tells. Index, Leader, Term and Registered are as they are now; every other field
// may be empty, which says that nothing changed.
type news struct {
	Index uint64 `json:"index"` // of the view that this is of
	// Whole says that Put is all that the worker holds, and not what changed.
	Whole bool             `json:"whole,omitempty"`
	Put   []*labmesh.Task  `json:"put,omitempty"`
	Gone  []labmesh.TaskID `json:"gone,omitempty"`
	// Secrets are those that tasks in Put ask for, by name.
	Secrets map[string]string `json:"secrets,omitempty"`
	// More says that the next frame goes on with this, and that neither holds without the other.
	More bool `json:"more,omitempty"`

	Leader     labmesh.NodeID   `json:"leader,omitempty"`     // as of Term; "" while the replica knows none
	Term       uint64           `json:"term,omitempty"`       // of the log
	Registered bool             `json:"registered,omitempty"` // the mesh has the worker, and has not lost it
	Members    []labmesh.Member `json:"members,omitempty"`    // that came or changed
	Replicas   []labmesh.NodeID `json:"replicas,omitempty"`
	Answers    []answer         `json:"answers,omitempty"`

	Refused *labmesh.Error `json:"refused,omitempty"` // the replica says no more, and why
}

func writeFrame(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	if len(data) > frameBytesMax {
		return labmesh.Refuse(labmesh.TooLarge, "write frame: %d bytes; at most %d", len(data), frameBytesMax)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data)))
	if _, err := w.Write(append(frame, data...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > frameBytesMax {
		return fmt.Errorf("read frame: %d bytes; at most %d", size, frameBytesMax)
	}
	var data bytes.Buffer // grows with what arrives, not with what is announced
	if _, err := io.CopyN(&data, r, int64(size)); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	if err := json.Unmarshal(data.Bytes(), v); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	return nil
}
