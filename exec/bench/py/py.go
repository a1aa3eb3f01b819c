// Package py holds the benchmark runner in Python, for PyTorch and ONNX
// Runtime, and puts it where an interpreter can run it.
//
//	python3 <dir>/runner.py torch|onnxruntime probe|run
package py

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed runner.py labmesh_bench/*.py
var files embed.FS

// Main is the file to run, of those that [Write] writes.
const Main = "runner.py"

// Version names what the runner is now: another one has another version.
func Version() string {
	sum := sha256.New()
	_ = each(func(name string, data []byte) error { // of what is in the binary
		fmt.Fprintf(sum, "%s %d\n", name, len(data))
		sum.Write(data)
		return nil
	})
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

// Write puts the runner's files into dir, which it makes, and returns the path
// of [Main]. Files that are there and as they should be are left alone, so that several may write at once.
func Write(dir string) (string, error) {
	err := each(func(name string, data []byte) error {
		path := filepath.Join(dir, name)
		if have, err := os.ReadFile(path); err == nil && string(have) == string(data) {
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return replace(path, data)
	})
	if err != nil {
		return "", fmt.Errorf("write the benchmark runner: %w", err)
	}
	return filepath.Join(dir, Main), nil
}

// each calls f for each file, in the order of their names.
func each(f func(name string, data []byte) error) error {
	return fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		return f(name, data)
	})
}

// replace writes a file whole or not at all.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
