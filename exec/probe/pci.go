package probe

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// The vendors of what this room looks for, as PCI numbers them.
const (
	vendorNVIDIA = "0x10de"
	vendorAMD    = "0x1002"
	vendorIntel  = "0x8086"
)

// PCI classes, of which the first byte counts or all three.
const (
	classDisplay     = "0x03"
	classAccelerator = "0x12"
)

// devicesMax bounds how many devices of one class are looked at.
const devicesMax = 64

// card is a device on the PCI bus.
type card struct {
	address        string
	vendor, device string // e.g. 0x10de and 0x1eb8
	class          string // e.g. 0x030200
	driver         string // the kernel's driver that has it; "" when none has
	nodes          []string
}

// display reports whether it is a display controller: a GPU, with or without an output.
func (c card) display() bool { return strings.HasPrefix(c.class, classDisplay) }

// accelerator reports whether it says of itself that it is one.
func (c card) accelerator() bool { return strings.HasPrefix(c.class, classAccelerator) }

// name says what it is in want of the vendor's own name.
func (c card) name(what string) string {
	return fmt.Sprintf("%s [%s:%s]", what, strings.TrimPrefix(c.vendor, "0x"), strings.TrimPrefix(c.device, "0x"))
}

// cards lists the GPUs and accelerators on the PCI bus.
func (cfg Config) cards() (out []card) {
	for _, dir := range cfg.glob("sys/bus/pci/devices/*") {
		c := card{address: filepath.Base(dir), vendor: cfg.text(dir, "vendor"), device: cfg.text(dir, "device"), class: cfg.text(dir, "class")}
		if !c.display() && !c.accelerator() {
			continue
		}
		if to, err := os.Readlink(cfg.at(dir, "driver")); err == nil {
			c.driver = filepath.Base(to)
		}
		for _, node := range cfg.glob(dir + "/drm/renderD*") {
			c.nodes = append(c.nodes, "/dev/dri/"+filepath.Base(node))
		}
		for _, node := range cfg.glob(dir + "/accel/accel*") {
			c.nodes = append(c.nodes, "/dev/accel/"+filepath.Base(node))
		}
		if out = append(out, c); len(out) == devicesMax {
			break
		}
	}
	return out
}

// at is where a path of the machine's file system is to be found.
func (cfg Config) at(path ...string) string {
	return filepath.Join(append([]string{"/", cfg.Root}, path...)...)
}

// glob lists the paths of the machine's file system that match a pattern.
func (cfg Config) glob(pattern string) []string {
	found, _ := filepath.Glob(cfg.at(pattern)) // the patterns are ours, and sound
	root := strings.TrimSuffix(cfg.at(), "/")
	for i := range found {
		found[i] = strings.TrimPrefix(found[i], root)
	}
	return found
}

// text is what a small file says, without blanks around it; "" where there is none.
func (cfg Config) text(path ...string) string {
	f, err := os.Open(cfg.at(path...))
	if err != nil {
		return ""
	}
	defer f.Close()
	buf := make([]byte, 4096)
	n, _ := f.Read(buf) // files of sysfs come in one piece
	return string(bytes.TrimSpace(buf[:n]))
}

// properties are lines of a name and a number, as KFD has them.
func (cfg Config) properties(path string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(cfg.text(path)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64); err == nil {
			out[name] = n
		}
	}
	return out
}

// opens says why a device file cannot be opened for reading and writing; "" when it can.
func (cfg Config) opens(path string) string {
	f, err := os.OpenFile(cfg.at(path), os.O_RDWR, 0)
	if err == nil {
		_ = f.Close()
		return ""
	}
	switch {
	case os.IsPermission(err):
		return path + " may not be opened by this user: add it to the group that owns the file (render or video), and log in anew"
	case os.IsNotExist(err):
		return path + " does not exist"
	}
	return fmt.Sprintf("%s cannot be opened: %v", path, err)
}

var longAddress = regexp.MustCompile(`^0000([0-9a-f]{4}:)`)

// pciAddress writes an address as sysfs does: nvidia-smi gives the domain eight digits, and capitals.
func pciAddress(s string) string {
	return longAddress.ReplaceAllString(strings.ToLower(s), "$1")
}
