package node

import (
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"labmesh/security"
)

func TestKeysAreForgottenLongAfterTheyWereNeeded(t *testing.T) {
	t.Parallel()
	var keys []security.SealKey
	for range 3 {
		k, err := security.MintSealKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	now, seen := time.Unix(1000, 0), map[string]time.Time{}
	at := func(after time.Duration, needed, ring []security.SealKey, wantMissing, wantPast []security.SealKey) {
		t.Helper()
		var r security.Ring
		ids := map[string]bool{}
		for _, k := range needed {
			ids[k.ID()] = true
		}
		for _, k := range ring {
			r = r.With(k)
		}
		missing, past := turnover(ids, r, seen, now.Add(after))
		same := func(got []string, want []security.SealKey) bool {
			return len(got) == len(want) && !slices.ContainsFunc(want, func(k security.SealKey) bool { return !slices.Contains(got, k.ID()) })
		}
		if !same(missing, wantMissing) || !same(past, wantPast) {
			t.Errorf("after %s: missing %v, past %v; want %v, %v", after, missing, past, wantMissing, wantPast)
		}
	}
	old, current, coming := keys[0], keys[1], keys[2]
	at(0, []security.SealKey{old, current}, []security.SealKey{old}, []security.SealKey{current}, nil)
	at(time.Second, []security.SealKey{current}, []security.SealKey{old, current}, nil, nil)
	at(sealKeep, []security.SealKey{current}, []security.SealKey{old, current, coming}, nil, nil)
	at(sealKeep+time.Second, []security.SealKey{current}, []security.SealKey{old, current, coming}, nil, []security.SealKey{old})
	at(2*sealKeep-time.Second, []security.SealKey{coming}, []security.SealKey{current, coming}, nil, nil)
	at(2*sealKeep+time.Second, []security.SealKey{coming}, []security.SealKey{current, coming}, nil, nil)
	at(4*sealKeep, []security.SealKey{coming}, []security.SealKey{current, coming}, nil, []security.SealKey{current})
}
