package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
	"labmesh/exec"
	"labmesh/exec/cgroup"
	"labmesh/exec/probe"
	"labmesh/exec/sandbox"
)

// machine is this machine, as the doctor looks at it.
type machine struct {
	dir     string      // the data dir
	self    string      // this program, to try what needs a process of its own; "" does without
	worker  *api.Worker // of the node that runs here; nil when none answers
	environ []string
}

// local is the worker of the node that was asked, if its data dir is dir.
func (m *meshAsked) local(dir string) *api.Worker {
	data, err := os.ReadFile(filepath.Join(dir, "api.json"))
	var f client.APIFile
	if err != nil || json.Unmarshal(data, &f) != nil || f.NodeID != m.status.Node {
		return nil
	}
	for i := range m.workers {
		if m.workers[i].Node == f.NodeID {
			return &m.workers[i]
		}
	}
	return nil
}

func (m machine) examine(ctx context.Context, f *findings) {
	if os.Geteuid() == 0 {
		f.warn("user", "make a user for it, and run labmesh up as that one", "this is root: tasks would run as root, and may do anything to this machine")
	} else {
		f.ok("user", "not root")
	}
	m.examineDir(f)
	m.examineDisk(f)
	c, fresh := m.capabilities(ctx)
	examineHeld(f, c)
	examineDevices(f, c)
	if m.worker != nil {
		examineSince(f, c, fresh)
	}
	examineEngines(f, c)
	examineSpeed(f, c)
	examineTools(f, c)
}

// capabilities are what the machine offers: as the node has found out, if one runs
// here, and as it is now.
func (m machine) capabilities(ctx context.Context) (c, fresh labmesh.Capabilities) {
	cfg := probe.Config{Dir: existing(m.dir), Environ: m.environ}
	if m.self != "" {
		cfg.GPUChild = probe.Child(m.self, internalCommand, gpuCommand)
	}
	fresh = probe.Probe(ctx, cfg)
	if m.worker != nil {
		return m.worker.Full, fresh
	}
	if m.self != "" {
		have, absent := sandbox.New([]string{m.self, internalCommand, sandboxCommand}, m.environ).Probe(ctx)
		fresh.Sandboxes = have
		for name, why := range absent {
			fresh.Absent["sandbox:"+string(name)] = why
		}
	}
	held, why := heldHere(filepath.Join(m.dir, "doctor"))
	if why != "" {
		fresh.Absent["cgroup"] = why
	}
	if held != "" {
		fresh.Tools["limits"] = held
	}
	return fresh, fresh
}

// existing is dir, or the nearest directory above it that is there.
func existing(dir string) string {
	for {
		if st, err := os.Stat(dir); err == nil && st.IsDir() || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// heldHere tries, under a name of its own, which limits programs can be held to here.
func heldHere(name string) (held, why string) {
	pool, err := cgroup.Open(cgroup.Config{Dir: name})
	if err != nil {
		return "", err.Error()
	}
	defer pool.Close()
	var words []string
	absent := pool.Absent()
	for _, c := range sortedKeys(absent) {
		words = append(words, c+": "+absent[c])
	}
	if len(words) > 0 {
		return "", strings.Join(words, "; ")
	}
	return strings.Join(pool.Holds(), ", ") + " (" + pool.Version() + ")", ""
}

// examineDir looks whether the data dir is there, is this user's, and hides what is secret.
func (m machine) examineDir(f *findings) {
	st, err := os.Stat(m.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if above := existing(m.dir); unix.Access(above, unix.W_OK) != nil {
			f.bad("data dir", "give the node another with --data-dir, or let this user write there", "%s is not there, and this user cannot make it: %s may not be written", m.dir, above)
			return
		}
		f.ok("data dir", "%s will be made by labmesh up", m.dir)
		return
	case err != nil:
		f.bad("data dir", "run this as the user who runs the node, or name its --data-dir", "%v", err)
		return
	case unix.Access(m.dir, unix.W_OK) != nil:
		f.bad("data dir", "run the node as its owner, or give it another --data-dir", "%s may not be written by this user", m.dir)
		return
	}
	if open := st.Mode().Perm() &^ 0o700; open != 0 {
		f.warn("data dir", "chmod 700 "+m.dir, "%s may be entered by others (mode %04o)", m.dir, st.Mode().Perm())
	} else {
		f.ok("data dir", "%s", m.dir)
	}
	for _, name := range []string{"node.key", "api.json", "mesh.json"} {
		path := filepath.Join(m.dir, name)
		st, err := os.Stat(path)
		if err == nil && st.Mode().Perm()&^0o600 != 0 {
			f.bad("data dir", "chmod 600 "+path+"; if others use this machine, give the node a new identity, or revoke the key", "%s may be read by others (mode %04o): whoever has it may run anything here", path, st.Mode().Perm())
		}
	}
}

// examineDisk looks how far the disk is from its floor.
func (m machine) examineDisk(f *findings) {
	dir := existing(m.dir)
	floor, err := exec.DiskFloor(dir)
	var st unix.Statfs_t
	if err == nil {
		err = unix.Statfs(dir, &st)
	}
	if err != nil {
		f.bad("disk", "", "%v", err)
		return
	}
	free, all := uint64(st.Bavail)*uint64(st.Bsize), uint64(st.Blocks)*uint64(st.Bsize) //nolint:unconvert // the types differ by system
	text := fmt.Sprintf("%s of %s free; the worker takes no work below %s", sizeOf(free), sizeOf(all), sizeOf(floor))
	const near = 4
	switch do := "free some space, or give the node another disk with --data-dir"; {
	case free < floor:
		f.bad("disk", do, "%s", text)
	case free < near*floor:
		f.warn("disk", do, "%s", text)
	default:
		f.ok("disk", "%s", text)
	}
}

func sizeOf(bytes uint64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) }

// examineHeld says what programs can be held to, and shut in by.
func examineHeld(f *findings, c labmesh.Capabilities) {
	if held := c.Tools["limits"]; held != "" {
		f.ok("cgroups", "tasks are held to all their limits: %s", held)
	} else {
		f.warn("cgroups", "run the node as a service with a cgroup of its own: see docs/operations.md", "tasks cannot be held to all their limits: %s", orElse(c.Absent["cgroup"], "no reason is known"))
	}
	for _, s := range labmesh.Sandboxes() {
		if slices.Contains(c.Sandboxes, s) {
			f.ok("sandbox "+string(s), "it can be made")
		} else {
			f.warn("sandbox "+string(s), "tasks that ask for it go elsewhere", "%s", orElse(c.Absent["sandbox:"+string(s)], "it cannot be made"))
		}
	}
}

// examineDevices says of each accelerator how far it works, and of the classes that are
// not there why not.
func examineDevices(f *findings, c labmesh.Capabilities) {
	for i := range c.Devices {
		d := &c.Devices[i]
		about := "device " + d.Class
		switch {
		case d.Class == labmesh.ClassCPU, d.Level == labmesh.DeviceUsable:
			f.ok(about, "%s", deviceLine(d))
		case d.Level == labmesh.DeviceDeclared:
			f.warn(about, "", "%s", deviceLine(d))
		case d.Level == labmesh.DeviceDriver:
			f.warn(about, "install PyTorch or onnxruntime with support for it where the node finds them (LABMESH_PYTHON names the interpreter), and start the node again", "%s", deviceLine(d))
		default:
			f.warn(about, "", "%s", deviceLine(d))
		}
	}
	for _, class := range probe.Classes() {
		present := slices.ContainsFunc(c.Devices, func(d labmesh.Device) bool { return d.Class == class })
		if why := c.Absent[class]; why != "" && !present {
			f.ok("no "+class, "%s", why)
		}
	}
}

// examineSince says what has come or gone since the node looked.
func examineSince(f *findings, then, now labmesh.Capabilities) {
	for _, class := range probe.Classes() {
		was, is := slices.Contains(then.Hardware, class), slices.Contains(now.Hardware, class)
		declared := slices.ContainsFunc(then.Devices, func(d labmesh.Device) bool { return d.Class == class && d.Level == labmesh.DeviceDeclared })
		switch {
		case is && !was:
			f.warn("device "+class, "start the node again, so that it offers it", "it answers now, and did not when the node started")
		case was && !is && !declared:
			f.bad("device "+class, "start the node again, so that nothing is placed here that needs it", "it answered when the node started, and does not now: %s", now.Absent[class])
		}
	}
}

// examineEngines says what runs benchmarks here.
func examineEngines(f *findings, c labmesh.Capabilities) {
	for _, e := range c.Engines {
		if e.Reason != "" {
			f.warn("engine "+e.Name, "", "%s", engineLine(e))
		} else {
			f.ok("engine "+e.Name, "%s", strings.TrimSpace(e.Version+" "+e.Path))
		}
	}
}

// examineSpeed says how fast the machine was when it was last measured.
func examineSpeed(f *findings, c labmesh.Capabilities) {
	switch cal := c.Calibration; {
	case cal == nil:
	case cal.Slower != "":
		f.warn("speed", "look at its cooling, its power settings, and what else runs here", "%s", cal.Slower)
	default:
		f.ok("speed", "%s", calibrationLine(cal))
	}
}

// examineTools lists the interpreters and toolchains.
func examineTools(f *findings, c labmesh.Capabilities) {
	var have []string
	for _, name := range sortedKeys(c.Tools) {
		if name != "limits" {
			have = append(have, strings.TrimSpace(name+" "+c.Tools[name]))
		}
	}
	if len(have) > 0 {
		f.ok("tools", "%s", strings.Join(have, ", "))
	}
}
