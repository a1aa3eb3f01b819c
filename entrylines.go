package labmesh

import (
	"bytes"
	"fmt"
	"time"
)

// EncodeCommands encodes commands as the lines that follow the first one of an
// entry, each with its line break.
func EncodeCommands(cmds []Command) ([]byte, error) {
	var lines []byte
	for _, c := range cmds {
		line, err := EncodeCommand(c)
		if err != nil {
			return nil, err
		}
		lines = append(append(lines, line...), '\n')
	}
	return lines, nil
}

// DecodeCommands reads what [EncodeCommands] wrote.
func DecodeCommands(lines []byte) ([]Command, error) {
	cmds := make([]Command, 0, bytes.Count(lines, []byte("\n")))
	for len(lines) > 0 {
		line, rest, ok := bytes.Cut(lines, []byte("\n"))
		if !ok {
			return nil, fmt.Errorf("decode commands: command %d is cut off", len(cmds))
		}
		c, err := DecodeCommand(line)
		if err != nil {
			return nil, fmt.Errorf("decode commands: command %d: %w", len(cmds), err)
		}
		cmds, lines = append(cmds, c), rest
	}
	return cmds, nil
}

// JoinEntry makes the encoding of an entry from commands that are encoded
// already, by [EncodeCommands]. [DecodeEntry] reads it.
func JoinEntry(at time.Time, lines ...[]byte) []byte {
	head := entryMagic + " " + at.UTC().Format(time.RFC3339Nano) + "\n"
	size := len(head)
	for _, l := range lines {
		size += len(l)
	}
	data := append(make([]byte, 0, size), head...)
	for _, l := range lines {
		data = append(data, l...)
	}
	return data
}
