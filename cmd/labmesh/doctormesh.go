package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

// Clocks that differ by more are named. Tasks are timed by the leader's clock alone; what
// suffers are tokens and certificates that expire, and whoever compares logs.
const (
	clockWarn = time.Second
	clockBad  = time.Minute
)

// meshAsked is what a node said when the doctor asked.
type meshAsked struct {
	none    error // why no node was asked, or did not answer
	status  api.Status
	peers   api.PeerList
	noPeers error
	workers []api.Worker
}

// askMesh asks a node all that the doctor wants to know; none says why there is none.
func askMesh(ctx context.Context, c *client.Client, none error) (m meshAsked) {
	if none != nil {
		m.none = none
		return m
	}
	if m.status, m.none = c.Status(ctx); m.none != nil {
		return m
	}
	m.peers, m.noPeers = c.Peers(ctx)
	list, err := c.Workers(ctx)
	if err != nil {
		return m
	}
	for _, w := range list {
		if len(m.workers) == workersAsked {
			break
		}
		if full, err := c.Worker(ctx, w.ID); err == nil { // else it left meanwhile
			m.workers = append(m.workers, full)
		}
	}
	return m
}

// workersAsked bounds how many workers the doctor looks at.
const workersAsked = 256

func (m *meshAsked) examine(f *findings) {
	if m.none != nil {
		m.noNode(f)
		return
	}
	s := &m.status
	f.ok("node", "%s, %s, version %s, up %s", s.Node, s.Role, s.Version, short(seconds(s.Uptime)))
	if s.Leader == "" {
		f.bad("leader", "start the voters that are down; if they are gone for good, see lost quorum in docs/operations.md", "none: %d of %d voters are heard of, %d must be", s.VotersAlive, len(s.Voters), s.Quorum)
	} else {
		f.ok("leader", "%s, term %d; %s", s.Leader, s.Term, survives(*s))
	}
	for _, w := range s.Warnings {
		if s.Leader != "" || !strings.HasPrefix(w, "no leader") {
			f.warn("mesh", "", "%s", w)
		}
	}
	m.examinePeers(f)
	m.examineWorkers(f)
}

// noNode is what can be said of the mesh when no node answers.
func (m *meshAsked) noNode(f *findings) {
	switch labmesh.ReasonOf(m.none) {
	case labmesh.Denied:
		f.warn("node", "run this as the user who runs the node, or pass --addr and --api-key", "%v", m.none)
	case labmesh.Unavailable:
		f.warn("node", "start one with: labmesh up", "%v", m.none)
	default:
		f.bad("node", "see whether the node still runs, and what it logs", "%v", m.none)
	}
}

func (m *meshAsked) examinePeers(f *findings) {
	if m.noPeers != nil {
		f.warn("peers", "", "the node did not say how it reaches the others: %v", m.noPeers)
		return
	}
	if len(m.peers.Peers) > 1 || len(m.peers.Addrs) > 0 {
		examineAddrs(f, m.peers.Addrs)
	}
	versions := map[string][]string{}
	features := map[int]bool{}
	for i := range m.peers.Peers {
		p := &m.peers.Peers[i]
		if p.Version != "" {
			versions[string(p.Version)] = append(versions[string(p.Version)], peerName(p))
			features[p.Feature] = true
		}
		if !p.Self {
			m.examinePeer(f, p)
		}
	}
	switch {
	case len(features) > 1:
		f.warn("versions", "update the older ones: what is new is held back until every node knows it", "nodes of different feature levels: %s", sayVersions(versions))
	case len(versions) > 1:
		f.warn("versions", "nothing breaks; update the older ones when it suits", "nodes of different builds: %s", sayVersions(versions))
	case len(versions) == 1:
		f.ok("versions", "all nodes run %s, feature level %d", sayVersions(versions), labmesh.Feature)
	}
}

func sayVersions(versions map[string][]string) string {
	var parts []string
	for _, v := range sortedKeys(versions) {
		part := v
		if len(versions) > 1 {
			part += " (" + strings.Join(versions[v], ", ") + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}

// examineAddrs says whether other machines can find the node's address at all.
func examineAddrs(f *findings, addrs []string) {
	open := slices.DeleteFunc(slices.Clone(addrs), func(a string) bool {
		return strings.HasPrefix(a, "/ip4/127.") || strings.HasPrefix(a, "/ip6/::1/")
	})
	switch {
	case len(addrs) == 0:
		f.bad("mesh-listen", "look whether another program has the port, and choose another with --mesh-listen", "the node has no address for other nodes")
	case len(open) == 0:
		f.warn("mesh-listen", "to let other machines join, start the node with --mesh-listen /ip4/0.0.0.0/tcp/4080", "only this machine reaches the node, at %s", addrs[0])
	default:
		f.ok("mesh-listen", "other nodes reach this one at %s", strings.Join(open, ", "))
	}
}

func peerName(p *api.Peer) string {
	name := string(p.Node)
	if len(name) > 8 {
		name = "…" + name[len(name)-8:]
	}
	if p.Hostname != "" {
		name = p.Hostname + " " + name
	}
	return name
}

func (m *meshAsked) examinePeer(f *findings, p *api.Peer) {
	about := "peer " + peerName(p)
	if !p.Reached || p.RTT == nil || p.Ahead == nil {
		do := "see whether it runs and whether a firewall is in the way of its port (4080 unless --mesh-listen says otherwise); if it is gone for good, the mesh goes on without it"
		say := f.warn
		if slices.Contains(m.status.Voters, p.Node) {
			say = f.bad
		}
		say(about, do, "it does not answer (%s); last heard of %s", orElse(string(p.Error), "no reason given"), orElse(ago(time.Now(), p.LastHeard.Time), "never"))
		return
	}
	ahead, within := seconds(*p.Ahead), seconds(*p.RTT/2)
	path := string(p.Path)
	if path == "relayed" {
		f.warn(about, "open its mesh port to this machine: what is relayed is slow", "it is reached through another node, in %s", milliseconds(*p.RTT))
	} else {
		f.ok(about, "it answers in %s", milliseconds(*p.RTT))
	}
	off := time.Duration(math.Abs(float64(ahead))) - within
	word := map[bool]string{true: "ahead of", false: "behind"}[ahead > 0]
	do := "set the clocks by NTP (timedatectl set-ntp true, or chrony)"
	switch text := fmt.Sprintf("it is %s %s ours, give or take %s", time.Duration(math.Abs(float64(ahead))).Round(time.Millisecond/10), word, milliseconds(*p.RTT/2)); {
	case off > clockBad:
		f.bad("clock of "+peerName(p), do, "%s", text)
	case off > clockWarn:
		f.warn("clock of "+peerName(p), do, "%s", text)
	default:
		f.ok("clock of "+peerName(p), "%s", text)
	}
}

func milliseconds(s float64) string { return fmt.Sprintf("%.1f ms", 1000*s) }

// examineWorkers names workers that do not work, and machines that have become slow.
func (m *meshAsked) examineWorkers(f *findings) {
	well := 0
	for i := range m.workers {
		w := &m.workers[i]
		about := "worker " + string(w.ID)
		if w.Hostname != "" {
			about += " (" + w.Hostname + ")"
		}
		c := w.Full.Calibration
		switch {
		case w.Status == string(labmesh.WorkerOffline):
			f.warn(about, "start its node again, if it is to come back", "offline: %s", w.Reason)
		case w.Reason != "":
			f.warn(about, "", "%s: %s", w.Status, w.Reason)
		case c != nil && c.Slower != "":
			f.warn(about, "look at its cooling, its power settings, and what else runs there; benchmarks of it are not what they were", "%s", c.Slower)
		default:
			well++
		}
	}
	if well > 0 {
		f.ok("workers", "%d of %d take work", well, len(m.workers))
	}
}
