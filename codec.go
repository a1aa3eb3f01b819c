package labmesh

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Limits on log entries.
const (
	EntryBytesMax    = 16 << 20 // a whole entry; raft sends it in one message
	EntryCommandsMax = 20_000
)

// entryMagic opens every entry and names the framing. An entry is lines of
// text: this word and the time, then for each command its name, a blank and its
// JSON, which holds no line break.
const entryMagic = "labmesh-entry-1"

// Encode is the entry's form in the log. It is the same for equal entries.
func (e Entry) Encode() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\n", entryMagic, e.At.UTC().Format(time.RFC3339Nano))
	enc := json.NewEncoder(&b) // ends each value with a line break
	enc.SetEscapeHTML(false)
	for _, c := range e.Commands {
		b.WriteString(c.CommandName())
		b.WriteByte(' ')
		if err := enc.Encode(c); err != nil {
			return nil, fmt.Errorf("encode %s: %w", c.CommandName(), err)
		}
	}
	return b.Bytes(), nil
}

// DecodeEntry reads an entry of the log. An entry that holds a command this
// build does not know is an error: it is never skipped.
func DecodeEntry(data []byte) (Entry, error) {
	head, rest, ok := bytes.Cut(data, []byte("\n"))
	magic, at, ok2 := strings.Cut(string(head), " ")
	if !ok || !ok2 || magic != entryMagic {
		return Entry{}, fmt.Errorf("decode entry: it does not begin with %q: another version of labmesh wrote it", entryMagic)
	}
	t, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return Entry{}, fmt.Errorf("decode entry: time: %w", err)
	}
	e := Entry{At: t.UTC()}
	for len(rest) > 0 {
		var line []byte
		if line, rest, ok = bytes.Cut(rest, []byte("\n")); !ok {
			return Entry{}, fmt.Errorf("decode entry: command %d is cut off", len(e.Commands))
		}
		c, err := DecodeCommand(line)
		if err != nil {
			return Entry{}, fmt.Errorf("decode entry: command %d: %w", len(e.Commands), err)
		}
		e.Commands = append(e.Commands, c)
	}
	return e, nil
}

// EncodeCommand is one command as a line of an entry, without the line break.
func EncodeCommand(c Command) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(c.CommandName())
	b.WriteByte(' ')
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // what users wrote stays as they wrote it
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("encode %s: %w", c.CommandName(), err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// DecodeCommand reads one line of an entry.
func DecodeCommand(line []byte) (Command, error) {
	name, data, _ := bytes.Cut(line, []byte(" "))
	switch string(name) {
	case "found_mesh.v1":
		return decode[FoundMesh](data)
	case "submit_task.v1":
		return decode[SubmitTask](data)
	case "place_task.v1":
		return decode[PlaceTask](data)
	case "start_task.v1":
		return decode[StartTask](data)
	case "finish_task.v1":
		return decode[FinishTask](data)
	case "cancel_task.v1":
		return decode[CancelTask](data)
	case "expire_task.v1":
		return decode[ExpireTask](data)
	case "wake_tasks.v1":
		return decode[WakeTasks](data)
	case "put_worker.v1":
		return decode[PutWorker](data)
	case "lose_worker.v1":
		return decode[LoseWorker](data)
	case "put_member.v1":
		return decode[PutMember](data)
	case "ban_member.v1":
		return decode[BanMember](data)
	case "put_invite.v1":
		return decode[PutInvite](data)
	case "put_key.v1":
		return decode[PutKey](data)
	case RecordTests{}.CommandName():
		return decode[RecordTests](data)
	case RecordBench{}.CommandName():
		return decode[RecordBench](data)
	case PutSecret{}.CommandName():
		return decode[PutSecret](data)
	case DropSecret{}.CommandName():
		return decode[DropSecret](data)
	case HoldWorker{}.CommandName():
		return decode[HoldWorker](data)
	case ReportState{}.CommandName():
		return decode[ReportState](data)
	case RevokeKey{}.CommandName():
		return decode[RevokeKey](data)
	case UseKeys{}.CommandName():
		return decode[UseKeys](data)
	case DropInvite{}.CommandName():
		return decode[DropInvite](data)
	case PutTokenKey{}.CommandName():
		return decode[PutTokenKey](data)
	case PutSealKey{}.CommandName():
		return decode[PutSealKey](data)
	case RecordAudit{}.CommandName():
		return decode[RecordAudit](data)
	case RaiseLevel{}.CommandName():
		cmd, err := decode[RaiseLevel](data)
		if c, ok := cmd.(RaiseLevel); ok && c.Level > Feature {
			return nil, fmt.Errorf("the mesh has risen to feature level %d, this build knows %d: upgrade this node", c.Level, Feature)
		}
		return cmd, err
	}
	return nil, fmt.Errorf("unknown command %.40q: a newer version of labmesh wrote it; upgrade this node", name)
}

func decode[C Command](data []byte) (Command, error) {
	var c C // a fresh value each time: nothing of an earlier command can stay behind
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", c.CommandName(), err)
	}
	return c, nil
}
