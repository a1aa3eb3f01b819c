package httpapi

import (
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"labmesh"
)

// Limits on what one address may try without a good key. Good keys are not touched by them.
const (
	wrongRate     = 5 // per second
	wrongBurst    = 1000
	wrongAddrsMax = 10_000                               // that are told apart
	wrongForget   = wrongBurst / wrongRate * time.Second // by then every limiter is full again
)

// wrongKeys counts keys that were no good, by address. An address that has shown too many is answered
// from here, whatever it shows, but for good keys: those are looked at first.
type wrongKeys struct {
	mu    sync.Mutex
	since time.Time
	from  map[string]*rate.Limiter
}

// take notes a wrong key from an address, and refuses when there were too many.
func (k *wrongKeys) take(remote string, now time.Time) error {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.since) > wrongForget || k.from == nil {
		k.since, k.from = now, map[string]*rate.Limiter{}
	}
	l := k.from[host]
	if l == nil {
		if len(k.from) >= wrongAddrsMax {
			host = "" // all others share one
		}
		if l = k.from[host]; l == nil {
			l = rate.NewLimiter(wrongRate, wrongBurst)
			k.from[host] = l
		}
	}
	if !l.AllowN(now, 1) {
		return labmesh.Refuse(labmesh.Exhausted, "too many requests without a good key came from this address: try again later")
	}
	return nil
}
