package consensus

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"labmesh"
)

// Ledger is where the events of applied entries go. The log runs ahead of it.
type Ledger interface {
	// Append hands over the events of the entry at index. It is called in the
	// order of the log, and again for entries that are replayed after a
	// restart; those that the ledger has already must change nothing. It may
	// block: that holds back the replica.
	Append(index uint64, events []labmesh.Event)
	// Await returns once the ledger holds everything up to index on disk.
	Await(ctx context.Context, index uint64) error
	// Require says that the state has been restored from a snapshot at index,
	// so that no events up to it will be appended any more. A ledger that has
	// reached index ignores this; one that has not fetches the rows from a peer.
	// It must not block.
	Require(index uint64)
}

// Streams are how one node reaches another. The remote address of an accepted
// connection, as text, is the id of the node at the other end, which is a
// member of the mesh.
type Streams interface {
	Listen() (net.Listener, error)
	Dial(ctx context.Context, node labmesh.NodeID) (net.Conn, error)
}

// Profile is a set of raft's timeouts.
type Profile struct {
	Heartbeat time.Duration // silence of the leader after which a follower stands for election
	Election  time.Duration // an election without an outcome is begun anew after this
	Lease     time.Duration // a leader that no quorum has answered for this long steps down
}

// The profiles. Fast fails over in about half a second and is the default; WAN
// is for long or crowded lines and saturated machines. The lease is as long as
// the silence that begins an election: a shorter one makes a busy leader step
// down for nothing, and does not bring a new one any sooner.
var (
	Fast = Profile{Heartbeat: 250 * time.Millisecond, Election: 250 * time.Millisecond, Lease: 250 * time.Millisecond}
	WAN  = Profile{Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond, Lease: 500 * time.Millisecond}
)

// beat is the time from one heartbeat of a leader to the next.
func (p Profile) beat() time.Duration { return p.Heartbeat / beatsInPatience }

// Limits. Those on entries are in package labmesh.
const (
	leaderWaitMax     = 3 * time.Second        // how long Propose waits for a leader to appear
	answerMax         = 10 * time.Second       // how long Propose waits in all
	leaderPoll        = 20 * time.Millisecond  // how often it looks
	rpcTimeout        = time.Second            // silence after which a raft stream is given up
	confChangeTimeout = 5 * time.Second        // a change of the raft configuration
	settleTimeout     = 500 * time.Millisecond // entries under way when the replica stops
	stopTimeout       = 5 * time.Second        // the same, once its streams are closed

	// commitTimeout is how long raft leaves followers without word of what has
	// been committed when nothing else is sent. The nudger tells them at once;
	// this is for when a nudge was lost. Raft's 50 ms would cost an idle leader
	// more than its heartbeats.
	commitTimeout = 500 * time.Millisecond

	beatsInPatience = 2 // heartbeats within the silence that begins an election, see beat

	snapshotEntries  = 64 << 10 // entries after which a snapshot is taken
	snapshotInterval = 30 * time.Second
	trailingEntries  = 16 << 10 // entries kept behind a snapshot for slow followers
	snapshotsKept    = 2
	segmentBytes     = 8 << 20  // of the log on disk, allocated ahead
	cachedEntries    = 128      // newest entries kept in memory for followers
	appendEntriesMax = 1024     // entries in one message to a follower
	appendBytesMax   = 4 << 20  // bytes in one message, unless one entry alone is larger
	chunkBytes       = 64 << 10 // a stream that moves this much in rpcTimeout is alive
)

// Config says which replica to open.
type Config struct {
	ID  labmesh.NodeID
	Dir string // the log is in Dir/raft; unused with Memory

	// Memory, when set, holds the log in place of the disk: for tests. Opened
	// again with the same Memory a replica resumes, as after a restart.
	Memory *Memory

	// Found makes a replica without a log the first and only voter of a new
	// mesh. Without it such a replica waits to be added by another. A replica
	// that has a log resumes, whatever Found is.
	Found bool

	// SumEvery is how many entries lie between two comparisons of the replicas'
	// states; 0 means 4096.
	SumEvery uint64

	Profile Profile // Fast when zero
	Raft    Streams // for raft between replicas
	Forward Streams // for commands on their way to the leader
	Ledger  Ledger
	Logger  *slog.Logger

	segmentBytes int // for tests; 0 means segmentBytes
}

// segment is the size of the files of the log, in bytes.
func (c Config) segment() int {
	if c.segmentBytes > 0 {
		return c.segmentBytes
	}
	return segmentBytes
}

func (c Config) validate() error {
	switch {
	case c.ID == "":
		return errors.New("open replica: no id")
	case c.Dir == "" && c.Memory == nil:
		return errors.New("open replica: no directory")
	case c.Raft == nil || c.Forward == nil:
		return errors.New("open replica: no streams")
	case c.Ledger == nil:
		return errors.New("open replica: no ledger")
	case c.Logger == nil:
		return errors.New("open replica: no logger")
	}
	return nil
}

// raft is the library's configuration.
func (c Config) raft(roles chan<- bool) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.ID)
	conf.HeartbeatTimeout = c.Profile.Heartbeat
	conf.ElectionTimeout = c.Profile.Election
	conf.LeaderLeaseTimeout = c.Profile.Lease
	conf.CommitTimeout = commitTimeout
	conf.MaxAppendEntries = appendEntriesMax
	conf.BatchApplyCh = true
	conf.SnapshotThreshold = snapshotEntries
	conf.SnapshotInterval = snapshotInterval
	conf.TrailingLogs = trailingEntries
	conf.NoLegacyTelemetry = true
	conf.NotifyCh = roles
	conf.Logger = raftLogger(c.Logger)
	return conf
}
