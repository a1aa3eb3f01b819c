package mirror

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/exec/output"
)

func TestFramesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, offsetMax)
		f := frame{kind: rapid.SampledFrom([]kind{opening, data, ending, have, refused}).Draw(t, "kind"), number: rapid.Uint64Range(0, 1<<63).Draw(t, "number")}
		switch f.kind {
		case opening:
			f.task = labmesh.TaskID(rapid.StringN(1, 100, taskBytesMax).Draw(t, "task"))
			f.attempt = rapid.IntRange(1, attemptMax).Draw(t, "attempt")
		case data:
			f.stream = rapid.SampledFrom(output.Streams()).Draw(t, "stream")
			f.offset = size.Draw(t, "offset")
			f.bytes = rapid.SliceOfN(rapid.Byte(), 1, 2000).Draw(t, "bytes")
		case ending, have:
			f.sizes = [2]int64{size.Draw(t, "stdout"), size.Draw(t, "stderr")}
		}
		r := bufio.NewReader(bytes.NewReader(f.append(nil)))
		got, err := readFrame(r, make([]byte, frameBytesMax))
		if err != nil || !reflect.DeepEqual(got, f) {
			t.Fatalf("%+v came back as %+v, %v", f, got, err)
		}
		if _, err := readFrame(r, make([]byte, frameBytesMax)); !errors.Is(err, io.EOF) {
			t.Fatalf("after it: %v", err)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	for _, seed := range []frame{
		{kind: opening, number: 1, task: "t1", attempt: 2}, {kind: data, number: 1, stream: output.Stderr, offset: 1 << 40, bytes: []byte("out\xff")},
		{kind: ending, number: 1, sizes: [2]int64{1, 2}}, {kind: have, number: 3}, {kind: refused, number: 9},
	} {
		f.Add(seed.append(nil))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, buf := bufio.NewReader(bytes.NewReader(in)), make([]byte, frameBytesMax)
		for {
			got, err := readFrame(r, buf)
			if err != nil {
				return
			}
			again, err := readFrame(bufio.NewReader(bytes.NewReader(got.append(nil))), make([]byte, frameBytesMax))
			if err != nil || again.kind != got.kind || again.number != got.number || again.offset != got.offset || again.sizes != got.sizes ||
				again.task != got.task || again.attempt != got.attempt || !bytes.Equal(again.bytes, got.bytes) {
				t.Fatalf("%+v became %+v, %v", got, again, err)
			}
		}
	})
}
