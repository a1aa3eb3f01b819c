package api_test

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"labmesh/api"
)

func TestLogFramesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var all []api.LogFrame
		var wire []byte
		for range rapid.IntRange(0, 5).Draw(t, "frames") {
			f := api.LogFrame{
				Kind: rapid.SampledFrom([]api.LogKind{api.LogData, api.LogGap, api.LogBegin, api.LogNote, api.LogStill, api.LogEnd}).Draw(t, "kind"),
				At:   api.LogPosition{Attempt: rapid.IntRange(0, 1<<31).Draw(t, "attempt"), Offset: rapid.Int64Range(0, 1<<62).Draw(t, "offset")},
			}
			switch f.Kind {
			case api.LogData, api.LogNote:
				f.Data = rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "data")
			case api.LogGap:
				f.Missing = rapid.Int64Range(0, 1<<62).Draw(t, "missing")
			}
			all, wire = append(all, f), f.AppendTo(wire)
		}
		r := api.NewLogFrames(bytes.NewReader(wire))
		for _, want := range all {
			if got, err := r.Next(); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("%+v came back as %+v, %v", want, got, err)
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("at the end: %v", err)
		}
	})
}

func TestLogPositions(t *testing.T) {
	t.Parallel()
	for s, ok := range map[string]bool{"1-0": true, "2-12345678901": true, "": false, "1": false, "0-5": false, "1--5": false, "-1-5": false, "x-1": false, "1-5-5": false} {
		p, err := api.ParseLogPosition(s)
		if (err == nil) != ok || ok && p.String() != s {
			t.Errorf("%q: %v, %v", s, p, err)
		}
	}
}

func FuzzLogFrames(f *testing.F) {
	f.Add([]byte("data 1 0 3\nabcend 1 3 0\n"))
	f.Add([]byte("gap 2 100 9999\nbegin 3 0 0\nnote 1 1 2\nhistill 0 0 0\n"))
	f.Add([]byte(strings.Repeat("x", 100)))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := api.NewLogFrames(bytes.NewReader(in))
		for {
			got, err := r.Next()
			if err != nil {
				return
			}
			again, err := api.NewLogFrames(bytes.NewReader(got.AppendTo(nil))).Next()
			if err != nil || again.Kind != got.Kind || again.At != got.At || again.Missing != got.Missing || !bytes.Equal(again.Data, got.Data) {
				t.Fatalf("%+v became %+v, %v", got, again, err)
			}
		}
	})
}
