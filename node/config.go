package node

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/host"

	"labmesh"
	"labmesh/consensus"
	"labmesh/exec"
	"labmesh/exec/calibrate"
	"labmesh/store"
)

// Config says how a node runs. DataDir and Logger must be set.
type Config struct {
	DataDir string
	Host    string // the address of the HTTP API; loopback unless there is TLS
	Port    int    // 0 picks one
	DBPath  string // the ledger; in DataDir when ""
	TLSCert string
	TLSKey  string

	MeshListen []string // multiaddrs; the mesh's default when empty
	Join       []string // invites, tried in order; only looked at by a node that is in no mesh yet
	Hostname   string
	WorkerID   labmesh.WorkerID
	Slots      int // 0 means one for each core
	NoWork     bool
	Tags       map[string]string
	Declared   []labmesh.Device // that the person at the machine says it has; see probe.ParseDeclared

	BlobCache int64 // bytes of bundles and outputs that are kept here; 0 means 10 GiB, or a tenth of a smaller disk

	MaxReplicas int
	// Leaf says whether the node holds no copy of the log even where the mesh has
	// room for one more; nil leaves it as it was, and to the mesh when the node joins.
	Leaf    *bool
	Profile consensus.Profile
	Version string
	Logger  *slog.Logger

	// LedgerCheck tries a ledger file in a process of its own; see duckdb.Config.
	LedgerCheck func(ctx context.Context, path string) error
	// GPUChild asks the GPU driver in a process of its own; see probe.Config.
	GPUChild func(ctx context.Context) ([]byte, error)
	// GPUStates asks it again and again, in a process that is started for that; see
	// probe.OpenGPUs.
	GPUStates []string
	// BuiltIn is how this program is run to measure with the built-in engine; run or
	// probe is added. Without it there is none.
	BuiltIn []string
	// Calibrate measures how fast the machine is, in a process of its own, given the data dir and
	// the machine's memory in bytes; see calibrate.Child. nil means that nothing does.
	Calibrate func(ctx context.Context, dir string, memory int64) (calibrate.Result, error)
	// Sandbox is how this program is run to play the parts of a sandbox; see
	// sandbox.Box. Without it there are none.
	Sandbox []string

	// Keeper starts the process that keeps programs running while the node is
	// away; see process.Config. Without it they end with the node.
	Keeper []string
	// KeepOnStop says, when the node stops, whether what runs shall go on; nil means never.
	KeepOnStop func() bool

	// Parts replaces parts of the node, for meshes in memory and virtual time.
	Parts Parts
}

// Parts are what a node uses in place of parts of its own. Zero fields stand for its own.
type Parts struct {
	Libp2p       host.Host
	Backend      store.Backend
	Log          *consensus.Memory
	Runners      map[labmesh.Kind]exec.Runner
	Capabilities *labmesh.Capabilities
	NoHTTP       bool
	NoDiscovery  bool                 // neither mDNS nor DHT
	Uptime       func() time.Duration // of the machine, with the time that it slept
	// CalibrateEvery is how often the machine is measured, where it is; 0 means each day.
	CalibrateEvery time.Duration
	SumEvery       uint64 // entries between two comparisons of the replicas' states; 0 means consensus's own number
	Feature        int    // the feature level that the node says it knows, as an older build would; 0 means that of this build
}

// feature is the feature level that the node knows.
func (c Config) feature() int {
	if c.Parts.Feature > 0 {
		return c.Parts.Feature
	}
	return labmesh.Feature
}

// workerID is the id of the worker of a node.
func (c Config) workerID(node labmesh.NodeID) labmesh.WorkerID {
	if c.WorkerID != "" {
		return c.WorkerID
	}
	return labmesh.WorkerID("w-" + string(node[max(0, len(node)-8):]))
}

func (c Config) withDefaults() Config {
	if c.Host == "" {
		c.Host = "127.0.0.1"
	}
	if abs, err := filepath.Abs(c.DataDir); err == nil && c.DataDir != "" {
		c.DataDir = abs // programs run elsewhere, from files in it
	}
	if c.DBPath == "" {
		c.DBPath = filepath.Join(c.DataDir, ledgerFile)
	}
	if c.Hostname == "" {
		c.Hostname, _ = os.Hostname() // a node without a name is still a node
	}
	if c.Slots <= 0 {
		c.Slots = runtime.NumCPU()
	}
	if c.Profile == (consensus.Profile{}) {
		c.Profile = consensus.Fast
	}
	if c.MaxReplicas <= 0 {
		c.MaxReplicas = consensus.MaxReplicas
	}
	return c
}

// Validate says what is wrong with c, naming the flag.
func (c Config) Validate() error {
	switch {
	case c.DataDir == "":
		return labmesh.RefuseField("data-dir", "--data-dir: it must not be empty")
	case c.Port < 0 || c.Port > 65535:
		return labmesh.RefuseField("port", "--port: %d is no port; 0 picks one", c.Port)
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return labmesh.RefuseField("tls-cert", "--tls-cert and --tls-key belong together: give both or neither")
	case !c.loopback() && c.TLSCert == "":
		return labmesh.RefuseField("host", "--host %s can be reached from other machines, and keys would cross the network in the clear: give --tls-cert and --tls-key, or stay on 127.0.0.1", c.Host)
	case c.BlobCache < 0 || c.BlobCache > 0 && c.BlobCache < blobCacheMin:
		return labmesh.RefuseField("blob-cache", "--blob-cache: %d bytes is too little: give it %d MiB or more", c.BlobCache, blobCacheMin>>20)
	case c.MaxReplicas < 1:
		return labmesh.RefuseField("max-replicas", "--max-replicas: %d is less than 1", c.MaxReplicas)
	case strings.ContainsAny(string(c.WorkerID), " \t\n/"):
		return labmesh.RefuseField("worker-id", "--worker-id: %q holds a blank or a slash", c.WorkerID)
	}
	return nil
}

// blobCacheMin is the least that is of use: room for a few chunks of a few trees.
const blobCacheMin = 64 << 20

// loopback reports whether only this machine can reach the HTTP API.
func (c Config) loopback() bool {
	ip := net.ParseIP(c.Host)
	return c.Host == "localhost" || ip != nil && ip.IsLoopback()
}
