package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"labmesh"
)

// Names in a data dir. node.key and peers.json belong to the mesh, raft/ to
// consensus, attempts/, running/ and mirror/ to exec, blobs/ to content, ledger.duckdb to the store.
const (
	lockFile    = "lock"
	meshFile    = "mesh.json"
	apiFile     = "api.json"
	sealFile    = "seal.keys"
	auditFile   = "audit.spool"
	attemptsDir = "attempts"
	runningDir  = "running"
	mirrorDir   = "mirror"
	blobsDir    = "blobs"
	ledgerFile  = "ledger.duckdb"
)

// formatVersion stamps a data dir. A newer one is not touched. Version 2 keeps what
// raft promised in raft/meta.json, which builds of version 1 would not look for.
const formatVersion = 2

// dataDir is the directory that one node, and no other, keeps everything in.
type dataDir struct {
	path string
	lock *os.File
}

// identity is who this node is in which mesh. It outlives restarts: until the
// log speaks again, it tells whom to trust.
type identity struct {
	Format  int            `json:"format"`
	Mesh    labmesh.MeshID `json:"mesh_id"`
	Role    labmesh.Role   `json:"role"`
	Founder bool           `json:"founder,omitempty"`
	// Leaf says that the node holds no copy of the log. Replicas are then those that do, as far as it is known.
	Leaf     bool             `json:"leaf,omitempty"`
	Replicas []labmesh.NodeID `json:"replicas,omitempty"`
	Members  []labmesh.Member `json:"members,omitempty"`
}

// apiAccess tells the command line on this machine where the node is, and lets
// it in. It is for the node's user alone.
type apiAccess struct {
	URL    string         `json:"url"`
	APIKey string         `json:"api_key,omitempty"`
	Node   labmesh.NodeID `json:"node_id"`
	Mesh   labmesh.MeshID `json:"mesh_id"`
}

func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make data dir: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open data dir %s: %w", path, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = labmesh.Refuse(labmesh.Invalid, "data dir %s is in use by another labmesh node: stop that one, or give this one its own --data-dir", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &dataDir{path: path, lock: f}, nil
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// Close lets another node have the directory.
func (d *dataDir) Close() error {
	if err := d.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("release data dir %s: %w", d.path, err)
	}
	return nil
}

// loadIdentity reads who this node is; false when it is in no mesh yet.
func (d *dataDir) loadIdentity() (id identity, ok bool, err error) {
	err = d.load(meshFile, &id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return identity{}, false, nil
	case err != nil:
		return identity{}, false, err
	case id.Format > formatVersion:
		return identity{}, false, labmesh.Refuse(labmesh.Invalid, "data dir %s was written by a newer labmesh (format %d, this build knows %d): upgrade labmesh", d.path, id.Format, formatVersion)
	}
	return id, true, nil
}

func (d *dataDir) saveIdentity(id identity) error {
	id.Format = formatVersion
	return d.save(meshFile, id)
}

func (d *dataDir) loadAPI() (apiAccess, error) {
	var a apiAccess
	err := d.load(apiFile, &a)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return a, err
}

func (d *dataDir) saveAPI(a apiAccess) error { return d.save(apiFile, a) }

func (d *dataDir) load(name string, to any) error {
	data, err := os.ReadFile(d.file(name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("read %s: %w", d.file(name), err)
	}
	return nil
}

// save replaces a file whole, or not at all, and for nobody else's eyes.
func (d *dataDir) save(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return d.write(name, append(data, '\n'))
}

// write is save for what is bytes already.
func (d *dataDir) write(name string, data []byte) error {
	tmp, err := os.CreateTemp(d.path, name+".*") // 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), d.file(name))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}
