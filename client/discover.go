package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"labmesh"
)

// apiFile is what a node leaves in its data dir for the person at its machine.
const apiFile = "api.json"

// APIFile is the content of a node's api.json.
type APIFile struct {
	URL    string         `json:"url"`
	Key    string         `json:"api_key"`
	NodeID labmesh.NodeID `json:"node_id"`
	MeshID labmesh.MeshID `json:"mesh_id"`
}

// Where says where to look for a node. What is empty is taken from the
// environment.
type Where struct {
	Addr    string // of a node's API; else LABMESH_ADDR
	Key     string // an API key; else LABMESH_API_KEY
	DataDir string // of the node of this machine; else LABMESH_DATA_DIR, else [DefaultDataDir]

	// Getenv reads the environment; nil means [os.Getenv].
	Getenv func(string) string
}

// Discover finds a node: the one that Addr names, else the one whose data dir
// is on this machine. Without any it refuses with reason Unavailable.
func Discover(w Where) (Config, error) {
	getenv := w.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	or := func(s, name string) string {
		if s == "" {
			return getenv(name)
		}
		return s
	}
	cfg := Config{URL: or(w.Addr, "LABMESH_ADDR"), Key: or(w.Key, "LABMESH_API_KEY")}
	dir := or(w.DataDir, "LABMESH_DATA_DIR")
	if dir == "" {
		dir = DefaultDataDir(getenv)
	}
	path := filepath.Join(dir, apiFile)
	if cfg.URL != "" {
		return withLocalKey(cfg, path)
	}
	f, err := readAPIFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Config{}, labmesh.Refuse(labmesh.Unavailable,
			"no labmesh node found (there is no %s): start one with `labmesh up`, or name one with --addr", path)
	case errors.Is(err, fs.ErrPermission):
		return Config{}, labmesh.Refuse(labmesh.Denied,
			"%s may be read only by whoever runs the node: ask them for a key and pass --addr and --api-key", path)
	case err != nil:
		return Config{}, err
	}
	cfg.URL, cfg.Source = f.URL, path
	if cfg.Key == "" {
		cfg.Key = f.Key
	}
	return cfg, nil
}

// withLocalKey adds this machine's key to cfg when cfg means this machine's
// node. A key is never sent to another address than the one it was left for.
func withLocalKey(cfg Config, path string) (Config, error) {
	u, err := parseURL(cfg.URL)
	if err != nil {
		return Config{}, err
	}
	cfg.URL = u.String()
	if cfg.Key != "" {
		return cfg, nil
	}
	f, err := readAPIFile(path)
	if err != nil {
		return cfg, nil // it was a courtesy
	}
	if own, err := parseURL(f.URL); err == nil && own.String() == cfg.URL {
		cfg.Key = f.Key
	}
	return cfg, nil
}

// DefaultDataDir is where a node keeps its data when nobody says otherwise:
// $XDG_DATA_HOME/labmesh, else ~/.local/share/labmesh.
func DefaultDataDir(getenv func(string) string) string {
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "labmesh")
	}
	home := getenv("HOME")
	if home == "" {
		home, _ = os.UserHomeDir() // "" then makes a path relative to here, and the message says which
	}
	return filepath.Join(home, ".local", "share", "labmesh")
}

func readAPIFile(path string) (APIFile, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return APIFile{}, fmt.Errorf("read where the node is: %w", err)
	}
	var f APIFile
	if err := json.Unmarshal(data, &f); err != nil || f.URL == "" {
		return APIFile{}, labmesh.Refuse(labmesh.Invalid, "%s is damaged: restart the node with `labmesh up`, which writes it anew", path)
	}
	return f, nil
}
