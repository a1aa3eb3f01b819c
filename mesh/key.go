package mesh

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"labmesh"
)

const (
	keyMode      = 0o600
	keyBytesMax  = 4 << 10
	othersAccess = 0o077
)

// LoadKey reads the node's Ed25519 identity from path, and makes one there when
// there is none. A key that others could read is made private again; mended says
// that this was so, for the operator, who may want a new identity.
func LoadKey(path string) (key crypto.PrivKey, mended bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(path)
		return key, false, err
	}
	if err != nil {
		return nil, false, fmt.Errorf("load key: %w", err)
	}
	if info.Mode().Perm()&othersAccess != 0 {
		if err := os.Chmod(path, keyMode); err != nil {
			return nil, false, labmesh.Refuse(labmesh.Denied,
				"load key: %s can be read by others and cannot be mended: run chmod 600 on it (%v)", path, err)
		}
		mended = true
	}
	if info.Size() > keyBytesMax {
		return nil, mended, fmt.Errorf("load key: %s is no key: it has %d bytes", path, info.Size())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, mended, fmt.Errorf("load key: %w", err)
	}
	key, err = crypto.UnmarshalPrivateKey(data)
	if err != nil {
		return nil, mended, fmt.Errorf("load key %s: %w: restore it from a backup, or remove it for a new identity", path, err)
	}
	return key, mended, nil
}

func makeKey(path string) (crypto.PrivKey, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	data, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if err := writeFile(path, data); err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return key, nil
}

// KeyID is the node id that a key stands for.
func KeyID(key crypto.PrivKey) (labmesh.NodeID, error) {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return "", fmt.Errorf("node id of key: %w", err)
	}
	return nodeID(id), nil
}

// writeFile writes a private file whole or not at all.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func nodeID(id peer.ID) labmesh.NodeID { return labmesh.NodeID(id.String()) }

func peerID(node labmesh.NodeID) (peer.ID, error) {
	id, err := peer.Decode(string(node))
	if err != nil {
		return "", labmesh.Refuse(labmesh.Invalid, "%.80q is no node id", node)
	}
	return id, nil
}
