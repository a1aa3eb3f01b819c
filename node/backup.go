package node

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/peer"

	"labmesh"
	"labmesh/consensus"
	"labmesh/mesh"
	"labmesh/security"
	"labmesh/state"
	"labmesh/store"
	"labmesh/store/duckdb"
)

// A backup is a tar archive, compressed by zstd: what it is of, the state at one
// log index, all rows of the ledger up to it, and a checksum of each of these. It
// holds the secrets of the mesh.
const (
	backupFormat  = 1
	backupHead    = "backup.json"
	backupState   = "state.json"
	backupRows    = "rows/"
	backupSeal    = "seal.keys"
	backupSums    = "SHA256SUMS"
	backupPartMax = 1 << 30 // bytes of one part
)

// BackupInfo says what a backup is of.
type BackupInfo struct {
	Format  int            `json:"format"`
	Mesh    labmesh.MeshID `json:"mesh_id"`
	Index   uint64         `json:"log_index"`
	Level   int            `json:"level"`
	At      time.Time      `json:"at"` // of the newest entry in it
	Node    labmesh.NodeID `json:"node_id"`
	Version string         `json:"version"`
	Ledger  int            `json:"ledger_format"`
}

// Backup readies a backup of the mesh as this node knows it now, and returns what
// writes it. The mesh goes on meanwhile.
func (s *service) Backup(ctx context.Context) (func(io.Writer) error, error) {
	if !s.freshen(ctx) {
		s.n.cfg.Logger.WarnContext(ctx, "a backup is made of what this node knows: no leader says how far the log goes")
	}
	v := s.n.replica.View()
	if v.Mesh() == "" {
		return nil, labmesh.Refuse(labmesh.Unavailable, "back up: this node has not caught up yet: try again")
	}
	if err := s.n.ledger.Await(ctx, v.Index()); err != nil {
		return nil, labmesh.Refuse(labmesh.Unavailable, "back up: the ledger of this node has not reached log entry %d: %v", v.Index(), err)
	}
	gap, lacking, err := s.n.ledger.Gap(ctx)
	if err != nil {
		return nil, err
	}
	if lacking {
		return nil, labmesh.Refuse(labmesh.Unavailable, "back up: the ledger of this node lacks the rows of log entries %d to %d, which it fetches from other nodes: try again later, or ask another node", gap.After+1, gap.Upto)
	}
	return func(w io.Writer) error { return s.n.writeBackup(ctx, v, w) }, nil
}

func (n *Node) writeBackup(ctx context.Context, v state.View, w io.Writer) error {
	z, err := zstd.NewWriter(w)
	if err != nil {
		return err
	}
	a := &archive{tar: tar.NewWriter(z)}
	head, err := json.Marshal(BackupInfo{Format: backupFormat, Mesh: v.Mesh(), Index: v.Index(), Level: v.Level(), At: v.Now(), Node: n.ID(), Version: n.cfg.Version, Ledger: store.Format})
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	if err := errors.Join(a.put(backupHead, head), v.Encode(&buf)); err != nil {
		return err
	}
	if err := a.put(backupState, buf.Bytes()); err != nil {
		return err
	}
	if missing := n.vault.missing(); len(missing) > 0 {
		return labmesh.Refuse(labmesh.Unavailable, "back up: this node lacks seal keys %v, without which the backup's secrets could not be opened: try again, or ask another node", missing)
	}
	ring, err := n.vault.ring.Load().Encode()
	if err != nil {
		return err
	}
	if err := a.put(backupSeal, ring); err != nil {
		return err
	}
	for after := uint64(0); after < v.Index(); {
		buf.Reset()
		next, err := n.ledger.Export(ctx, after, v.Index(), fillRows, &buf)
		if err != nil {
			return err
		}
		if err := a.put(fmt.Sprintf("%s%020d-%020d", backupRows, after, next), buf.Bytes()); err != nil {
			return err
		}
		after = next
	}
	if err := a.put(backupSums, []byte(a.sums.String())); err != nil {
		return err
	}
	return errors.Join(a.tar.Close(), z.Close())
}

// archive is a tar archive that counts its parts up.
type archive struct {
	tar  *tar.Writer
	sums strings.Builder
}

func (a *archive) put(name string, data []byte) error {
	sum := sha256.Sum256(data)
	fmt.Fprintf(&a.sums, "%s  %s\n", hex.EncodeToString(sum[:]), name)
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := a.tar.Write(data)
	return err
}

// eachPart reads a backup and calls do with each part but the sums, in order. It is
// an error when a part is not what was written, or the end is missing.
func eachPart(path string, do func(name string, data []byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return labmesh.Refuse(labmesh.Invalid, "read backup: %v", err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderMaxMemory(backupPartMax))
	if err != nil {
		return err
	}
	defer z.Close()
	damaged := func(err error) error {
		return labmesh.Refuse(labmesh.Invalid, "%s is not a whole backup of labmesh: %v; was all of it copied?", path, err)
	}
	var sums strings.Builder
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			return damaged(err) // the end comes with the sums
		}
		if h.Size > backupPartMax {
			return damaged(fmt.Errorf("%q has %d bytes", h.Name, h.Size))
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return damaged(err)
		}
		if h.Name == backupSums {
			if string(data) != sums.String() || sums.Len() == 0 {
				return damaged(errors.New("its checksums do not hold"))
			}
			return nil
		}
		sum := sha256.Sum256(data)
		fmt.Fprintf(&sums, "%s  %s\n", hex.EncodeToString(sum[:]), h.Name)
		if err := do(h.Name, data); err != nil {
			return err
		}
	}
}

// CheckBackup reads a whole backup and says what it is of.
func CheckBackup(path string) (info BackupInfo, err error) {
	first := true
	err = eachPart(path, func(name string, data []byte) error {
		if !first {
			return nil
		}
		first = false
		if name != backupHead || json.Unmarshal(data, &info) != nil {
			return labmesh.Refuse(labmesh.Invalid, "%s is no backup of labmesh", path)
		}
		if info.Format > backupFormat || info.Level > labmesh.Feature || info.Ledger > store.Format {
			return labmesh.Refuse(labmesh.Invalid, "%s was written by a newer labmesh (%s; format %d, feature level %d, ledger %d; this build knows %d, %d, %d): upgrade labmesh",
				path, info.Version, info.Format, info.Level, info.Ledger, backupFormat, labmesh.Feature, store.Format)
		}
		return nil
	})
	return info, err
}

// RestoreConfig says what to restore where.
type RestoreConfig struct {
	File     string // the backup
	DataDir  string // must be empty, or not there
	Hostname string // "" for that of this machine
	Logger   *slog.Logger
}

// Restore makes of a backup the data dir of a new node, with a key of its own: the
// only member of the mesh as it was. The members that it had are banned, so that one
// that lives on does not meet another history of its mesh; what ran on them counts as lost.
func Restore(ctx context.Context, cfg RestoreConfig) (info BackupInfo, node labmesh.NodeID, err error) {
	if info, err = CheckBackup(cfg.File); err != nil {
		return info, "", err
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return info, "", err
	}
	if there, err := os.ReadDir(dir); err == nil && len(there) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return info, "", labmesh.Refuse(labmesh.Invalid, "restore: %s is not empty: name a new --data-dir, or move what is there away", dir)
	}
	work := dir + ".restoring" // a data dir is there whole or not at all
	if err := errors.Join(os.RemoveAll(work), os.MkdirAll(work, 0o700)); err != nil {
		return info, "", fmt.Errorf("restore: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	if node, err = restoreInto(ctx, cfg, work, info); err != nil {
		return info, "", fmt.Errorf("restore: %w", err)
	}
	if err := os.Rename(work, dir); err != nil {
		return info, "", fmt.Errorf("restore: %w", err)
	}
	return info, node, nil
}

func restoreInto(ctx context.Context, cfg RestoreConfig, dir string, info BackupInfo) (labmesh.NodeID, error) {
	node, err := nodeOf(dir)
	if err != nil {
		return "", err
	}
	cluster, err := restoreLedger(ctx, cfg, dir, info)
	if err != nil {
		return "", err
	}
	host := cfg.Hostname
	if host == "" {
		host, _ = os.Hostname() // a node without a name is still a node
	}
	self := labmesh.Member{Node: node, Role: labmesh.RoleNode, Hostname: host}
	cmds := []labmesh.Command{labmesh.PutMember{Member: self}}
	for m := range cluster.View().Members() {
		if !m.Banned {
			cmds = append(cmds, labmesh.BanMember{Node: m.Node, By: "restore"})
		}
	}
	d := &dataDir{path: dir}
	if err := restoreRing(cfg.File, d); err != nil {
		return "", err
	}
	if err := consensus.Seed(dir, node, cfg.Logger, cluster.View(), cmds...); err != nil {
		return "", err
	}
	return node, d.saveIdentity(identity{Mesh: info.Mesh, Role: labmesh.RoleNode, Members: []labmesh.Member{self}})
}

// restoreRing writes the seal keys of a backup, where it has any.
func restoreRing(file string, d *dataDir) error {
	return eachPart(file, func(name string, data []byte) error {
		if name != backupSeal {
			return nil
		}
		ring, err := security.ParseRing(data)
		if err != nil {
			return err
		}
		return d.saveRing(ring)
	})
}

// restoreLedger fills a new ledger with the rows of a backup, and returns its state.
func restoreLedger(ctx context.Context, cfg RestoreConfig, dir string, info BackupInfo) (cluster *state.Cluster, err error) {
	db, _, err := duckdb.Open(ctx, duckdb.Config{Path: filepath.Join(dir, ledgerFile), Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Require(ctx, info.Index); err != nil {
		return nil, err
	}
	err = eachPart(cfg.File, func(name string, data []byte) error {
		switch {
		case name == backupState:
			cluster, err = state.Decode(bytes.NewReader(data))
			return err
		case strings.HasPrefix(name, backupRows):
			var after, next uint64
			if _, err := fmt.Sscanf(name, backupRows+"%d-%d", &after, &next); err != nil {
				return labmesh.Refuse(labmesh.Invalid, "there is a part %.80q in it", name)
			}
			return db.Import(ctx, bytes.NewReader(data), next)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if gap, lacking, err := db.Gap(ctx); err != nil || lacking {
		return nil, errors.Join(err, labmesh.Refuse(labmesh.Invalid, "the backup lacks rows after log entry %d", gap.After))
	}
	if cluster == nil || cluster.View().Index() != info.Index || cluster.View().Mesh() != info.Mesh {
		return nil, labmesh.Refuse(labmesh.Invalid, "the backup contradicts itself: its state is not that of log entry %d", info.Index)
	}
	return cluster, nil
}

// nodeOf is the id of the node with the key in dir, which is made if it is not there.
func nodeOf(dir string) (labmesh.NodeID, error) {
	key, _, err := mesh.LoadKey(filepath.Join(dir, mesh.KeyFile))
	if err != nil {
		return "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("node key: %w", err)
	}
	return labmesh.NodeID(id.String()), nil
}
