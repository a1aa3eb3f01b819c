package api_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"labmesh"
	"labmesh/api"
)

func TestChunksComeOutAsTheyWentIn(t *testing.T) {
	t.Parallel()
	var body []byte
	in := [][]byte{[]byte("a"), bytes.Repeat([]byte("b"), api.ChunkBytesMax), {0, 0, 0, 1}}
	for _, c := range in {
		body = api.AppendChunk(body, c)
	}
	r, buf := bytes.NewReader(body), make([]byte, api.ChunkBytesMax)
	for i, want := range in {
		if got, err := api.ReadChunk(r, buf); err != nil || !bytes.Equal(got, want) {
			t.Errorf("chunk %d has %d bytes, %v", i, len(got), err)
		}
	}
	if _, err := api.ReadChunk(r, buf); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func FuzzReadChunk(f *testing.F) {
	f.Add(api.AppendChunk(api.AppendChunk(nil, []byte("one")), []byte("two")))
	f.Add([]byte{0, 0, 0, 9, 'x'})
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, body []byte) {
		r, buf := bytes.NewReader(body), make([]byte, api.ChunkBytesMax)
		var again []byte
		for {
			chunk, err := api.ReadChunk(r, buf)
			if errors.Is(err, io.EOF) {
				if !bytes.Equal(again, body) {
					t.Fatalf("%q was read as %q", body, again)
				}
				return
			}
			if err != nil {
				if labmesh.ReasonOf(err) != labmesh.Invalid && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatal(err)
				}
				return
			}
			again = api.AppendChunk(again, chunk)
		}
	})
}
