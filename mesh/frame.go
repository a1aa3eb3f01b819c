package mesh

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"labmesh"
)

// frameHead is the length that goes before each frame, big-endian.
const frameHead = 4

// writeFrame sends v as one frame of JSON, of at most limit bytes.
func writeFrame(w io.Writer, v any, limit int) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	if len(data) > limit {
		return labmesh.Refuse(labmesh.TooLarge, "write frame: %d bytes are more than %d", len(data), limit)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, frameHead+len(data)), uint32(len(data)))
	if _, err := w.Write(append(frame, data...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// readFrame reads one frame of JSON, of at most limit bytes, into v.
func readFrame(r io.Reader, v any, limit int) error {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if int64(n) > int64(limit) {
		return labmesh.Refuse(labmesh.TooLarge, "read frame: %d bytes are more than %d", n, limit)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return fmt.Errorf("read frame: %w", err)
	}
	if err := json.Unmarshal(data, v); err != nil { // refuses what follows the value
		return labmesh.Refuse(labmesh.Invalid, "read frame: %v", err)
	}
	return nil
}
