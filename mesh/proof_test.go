package mesh

import (
	"testing"

	"labmesh"
)

func TestProofHoldsForOneHandshakeOnly(t *testing.T) {
	t.Parallel()
	key := InviteKey([]byte("secret"))
	good := handshake{mesh: "m", inviteID: "i", joiner: "a", server: "b", nonceJ: make([]byte, nonceBytes), nonceS: make([]byte, nonceBytes)}
	said := []byte(`{"hostname":"box"}`)
	proof := good.proof(key, sideJoiner, said)
	if !good.proves(key, sideJoiner, said, proof) {
		t.Fatal("a true proof does not hold")
	}
	other := make([]byte, nonceBytes)
	other[0] = 1
	forged := map[string]func(h *handshake, key *[]byte, side *string, said *[]byte){
		"another key":        func(_ *handshake, k *[]byte, _ *string, _ *[]byte) { *k = InviteKey([]byte("guess")) },
		"the other side":     func(_ *handshake, _ *[]byte, s *string, _ *[]byte) { *s = sideServer },
		"other words":        func(_ *handshake, _ *[]byte, _ *string, s *[]byte) { *s = []byte(`{}`) },
		"another mesh":       func(h *handshake, _ *[]byte, _ *string, _ *[]byte) { h.mesh = "x" },
		"another invite":     func(h *handshake, _ *[]byte, _ *string, _ *[]byte) { h.inviteID = "x" },
		"another joiner":     func(h *handshake, _ *[]byte, _ *string, _ *[]byte) { h.joiner = "x" },
		"another server":     func(h *handshake, _ *[]byte, _ *string, _ *[]byte) { h.server = "x" },
		"another nonce":      func(h *handshake, _ *[]byte, _ *string, _ *[]byte) { h.nonceS = other },
		"its other nonce":    func(h *handshake, _ *[]byte, _ *string, _ *[]byte) { h.nonceJ = other },
		"no nonce":           func(h *handshake, _ *[]byte, _ *string, _ *[]byte) { h.nonceS = nil },
		"shifted mesh, id":   func(h *handshake, _ *[]byte, _ *string, _ *[]byte) { h.mesh, h.inviteID = "mi", "" },
		"shifted ends":       func(h *handshake, _ *[]byte, _ *string, _ *[]byte) { h.joiner, h.server = "ab", "" },
		"ends the other way": func(h *handshake, _ *[]byte, _ *string, _ *[]byte) { h.joiner, h.server = labmesh.NodeID("b"), "a" },
	}
	for name, change := range forged {
		h, k, side, s := good, key, sideJoiner, said
		change(&h, &k, &side, &s)
		if h.proves(k, side, s, proof) {
			t.Errorf("%s: the proof holds", name)
		}
	}
}
