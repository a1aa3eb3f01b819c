package mesh_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"testing"
	"time"

	"labmesh"
	"labmesh/mesh"
)

func FuzzDecodeJoin(f *testing.F) {
	frame := func(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }
	for _, s := range []string{
		`{"mesh_id":"m","invite_id":"i","nonce":"AAAA"}`, `{"nonce":"AAAA","refused":{"reason":"denied","message":"no"}}`,
		`{"request":{"hostname":"h","addrs":["/ip4/127.0.0.1/tcp/1"]},"proof":"AAAA"}`, `{"reply":{"members":[{"node_id":"n"}]}}`,
		`null`, `{} {}`, `[]`, ``,
	} {
		f.Add(frame(s))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, err := range mesh.DecodeJoin(data) {
			if err == nil && !json.Valid(data[4:4+binary.BigEndian.Uint32(data)]) {
				t.Errorf("read %q, which is no JSON", data)
			}
		}
	})
}

func FuzzDecodeAdvert(f *testing.F) {
	good, err := json.Marshal(labmesh.Advert{Node: "n", Boot: 1, Seq: 1, Lease: time.Second, Addrs: []string{"/ip4/127.0.0.1/tcp/1"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"node_id":"other","boot":1,"seq":1,"lease_ns":1000000000}`))
	f.Add([]byte(`{"node_id":"n","boot":1,"seq":1,"lease_ns":-1}`))
	f.Add(append(good, '{', '}'))
	f.Add(bytes.Repeat([]byte("["), 1<<10))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := mesh.DecodeAdvert(data, "n")
		if err != nil {
			if a.Node != "" {
				t.Error("an advert that was refused came through")
			}
			return
		}
		if a.Node != "n" || a.Boot <= 0 || a.Seq == 0 || a.Lease < mesh.LeaseMin || a.Lease > mesh.LeaseMax || len(a.Addrs) > mesh.AdvertAddrsMax {
			t.Errorf("took %+v", a)
		}
	})
}
