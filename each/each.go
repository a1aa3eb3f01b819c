// Package each makes many tasks of one: one for each worker, device, kind of GPU
// or value of a tag that there is in the mesh, so that a lab measures or tests all
// of its machines with one file. What cannot take part is named, with the reason.
//
// The room is pure.
package each

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"labmesh"
	"labmesh/bench"
)

// What a task can be made for each of.
const (
	Worker    = "worker"   // every worker that fits
	Device    = "device"   // every device of every worker that a benchmark can run on
	GPUName   = "gpu.name" // every kind of accelerator, by its name: on one worker that has it
	tagPrefix = "tag."     // and a key: every value that workers are tagged with
)

// Label is the label that says what each of the tasks is for.
const Label = "for_each"

// Limits.
const (
	TasksMax      = 1000 // made of one
	labelCharsMax = 256  // as the mesh takes them
	keyBytesMax   = 256
	tagCharsMax   = 256
)

// Task is one of the tasks that were made.
type Task struct {
	Spec   labmesh.Spec
	For    string           // what it is for, as people call it
	Worker labmesh.WorkerID // where it goes; "" if any worker with the tag will do
}

// Left is a worker, or one of its devices, that no task was made for.
type Left struct {
	Worker   labmesh.WorkerID `json:"worker_id"`
	Hostname string           `json:"hostname"`
	Device   string           `json:"device,omitempty"` // "" for the whole worker
	Reason   string           `json:"reason"`
}

// Check refuses what is no thing to make a task for each of.
func Check(by string) *labmesh.Error {
	switch key, isTag := strings.CutPrefix(by, tagPrefix); {
	case by == Worker, by == Device, by == GPUName:
		return nil
	case isTag && key != "" && len(key) <= tagCharsMax:
		return nil
	}
	return labmesh.RefuseField("for_each", "for_each: %.40q is not one of %s, %s, %s, %sKEY", by, GPUName, Device, Worker, tagPrefix)
}

// Expand makes of s one task for each of what by names among workers. Workers that
// are not active are left out, as is what the requirements of s shut out. The
// same workers make the same tasks, in whatever order they come.
func Expand(s labmesh.Spec, by string, workers []labmesh.Worker) ([]Task, []Left, *labmesh.Error) {
	if refused := check(&s, by); refused != nil {
		return nil, nil, refused
	}
	placed := s
	bench.Place(&placed)
	x := &expansion{spec: s, needs: placed.Requirements, seen: map[string]bool{}}
	sorted := slices.SortedFunc(slices.Values(workers), func(a, b labmesh.Worker) int {
		return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), cmp.Compare(a.ID, b.ID))
	})
	for i := range sorted {
		if refused := x.take(by, &sorted[i]); refused != nil {
			return nil, nil, refused
		}
		if len(x.tasks) > TasksMax {
			return nil, nil, labmesh.Refuse(labmesh.TooLarge, "for_each: %s makes more than %d tasks of one: narrow its requirements down", by, TasksMax)
		}
	}
	return x.tasks, x.left, nil
}

func check(s *labmesh.Spec, by string) *labmesh.Error {
	if refused := Check(by); refused != nil {
		return refused
	}
	switch {
	case s.TaskID != "":
		return labmesh.RefuseField("task_id", "task_id: for_each makes several tasks, which cannot have one id; an idempotency_key is told apart for each")
	case by == Device && s.Kind != labmesh.Benchmark:
		return labmesh.RefuseField("for_each", "for_each: %s is for benchmarks, which run on one device; for %s tasks there are %s, %s and %sKEY", Device, s.Kind, GPUName, Worker, tagPrefix)
	case (by == Device || by == GPUName) && s.Kind == labmesh.Benchmark:
		return checkFree(s.Config)
	}
	return nil
}

// checkFree refuses a config that names the device itself.
func checkFree(raw json.RawMessage) *labmesh.Error {
	var c struct {
		Device string `json:"device"`
		UUID   string `json:"device_uuid"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return labmesh.RefuseField("config", "config: %v", err)
	}
	if c.UUID != "" || strings.Contains(c.Device, ":") {
		return labmesh.RefuseField("config.device", "config.device: it names one device, and for_each chooses them; name its class alone, such as cuda")
	}
	return nil
}

// expansion is the work on one task.
type expansion struct {
	spec  labmesh.Spec
	needs labmesh.Requirements // with those that its config adds
	seen  map[string]bool      // values that have their task
	tasks []Task
	left  []Left
}

// take makes the tasks for one worker, or says why there are none.
func (x *expansion) take(by string, w *labmesh.Worker) *labmesh.Error {
	if why := absent(w); why != "" {
		x.leave(w, "", why)
		return nil
	}
	if by == Device || by == GPUName && x.spec.Kind == labmesh.Benchmark {
		return x.devices(by, w)
	}
	if why := x.needs.Misfits(x.spec.Kind, w); len(why) > 0 {
		x.leave(w, "", strings.Join(why, "; "))
		return nil
	}
	switch by {
	case Worker:
		return x.add(string(w.ID), host(w), w, nil)
	case GPUName:
		return x.gpus(w)
	}
	key := strings.TrimPrefix(by, tagPrefix)
	value, ok := w.Tags[key]
	if !ok {
		x.leave(w, "", "it has no tag "+key)
		return nil
	}
	if x.seen[value] {
		return nil
	}
	if refused := x.add(value, value, nil, nil); refused != nil {
		return refused
	}
	last := &x.tasks[len(x.tasks)-1].Spec.Requirements
	last.Tags = with(key, value, last.Tags)
	return nil
}

// absent says why a worker takes no work; "" for one that does.
func absent(w *labmesh.Worker) string {
	if w.Status == labmesh.WorkerActive {
		return ""
	}
	why := "it is " + string(w.Status)
	if w.Reason != "" {
		why += " (" + w.Reason + ")"
	}
	return why
}

// devices makes a benchmark for each device of w that it can run on.
func (x *expansion) devices(by string, w *labmesh.Worker) *labmesh.Error {
	found, named := w.Capabilities.Devices, len(x.left)
	if len(found) == 0 {
		if d, ok := x.needs.Device(&w.Capabilities); ok {
			found = []labmesh.Device{d} // the processor
		}
	}
	taken := false
	for i := range found {
		d := &found[i]
		if by == GPUName && d.Class == labmesh.ClassCPU || !x.wants(d) {
			continue
		}
		if why := x.misfits(w, d); len(why) > 0 {
			x.leave(w, title(d), strings.Join(why, "; "))
			continue
		}
		taken = true
		key, name := title(d), title(d)
		if by == Device {
			key, name = string(w.ID)+"\x00"+place(d), host(w)+" "+place(d)
			if title(d) != place(d) {
				name += " " + title(d)
			}
		}
		if refused := x.add(key, name, w, d); refused != nil {
			return refused
		}
	}
	if taken || len(x.left) > named {
		return nil
	}
	why := x.needs.Misfits(x.spec.Kind, w)
	if len(why) == 0 {
		why = []string{"it has no accelerator that an engine ran on"}
	}
	x.leave(w, "", strings.Join(why, "; "))
	return nil
}

// wants reports whether a device is of a class that the task asks for; where it
// asks for none, every device is.
func (x *expansion) wants(d *labmesh.Device) bool {
	words := x.needs.Hardware
	if len(words) == 0 {
		return x.needs.MinCUDACompute <= 0 || strings.EqualFold(d.Class, "cuda")
	}
	return slices.ContainsFunc(words, func(h string) bool { return strings.EqualFold(h, d.Class) }) &&
		(d.Class != labmesh.ClassCPU || len(words) == 1)
}

// misfits says why the task cannot run on that device of w.
func (x *expansion) misfits(w *labmesh.Worker, d *labmesh.Device) []string {
	r, alone := x.needs, *w
	alone.Capabilities.Devices = []labmesh.Device{*d}
	if d.Class != labmesh.ClassCPU && len(r.Hardware) == 0 {
		r.Hardware = []string{d.Class}
	}
	return r.Misfits(x.spec.Kind, &alone)
}

// gpus makes a task for each name of a GPU that no worker before w has.
func (x *expansion) gpus(w *labmesh.Worker) *labmesh.Error {
	var names []string
	for i := range w.Capabilities.Devices {
		if d := &w.Capabilities.Devices[i]; d.Class != labmesh.ClassCPU && d.Answers() {
			names = append(names, title(d))
		}
	}
	if g := w.Capabilities.GPU; g != nil && len(names) == 0 {
		for _, d := range g.Devices {
			names = append(names, words(d.Name))
		}
	}
	if len(names) == 0 {
		x.leave(w, "", "it has no GPU whose driver answers")
		return nil
	}
	for _, name := range names {
		if refused := x.add(name, name, w, nil); refused != nil {
			return refused
		}
	}
	return nil
}

// add makes the task for value, unless there is one with the same key. On w, if
// it is not nil, and there on d.
func (x *expansion) add(key, value string, w *labmesh.Worker, d *labmesh.Device) *labmesh.Error {
	if x.seen[key] {
		return nil
	}
	x.seen[key] = true
	t := Task{Spec: x.spec, For: value}
	t.Spec.Labels = with(Label, cut(value), t.Spec.Labels)
	if k := t.Spec.IdempotencyKey; k != "" {
		t.Spec.IdempotencyKey = keyFor(k, key)
	}
	if w != nil {
		t.Worker, t.Spec.Requirements.WorkerID = w.ID, w.ID
	}
	if d != nil {
		var err error
		if t.Spec.Config, err = onDevice(t.Spec.Config, d); err != nil {
			return labmesh.RefuseField("config", "config: %v", err)
		}
	}
	x.tasks = append(x.tasks, t)
	return nil
}

func (x *expansion) leave(w *labmesh.Worker, device, why string) {
	x.left = append(x.left, Left{Worker: w.ID, Hostname: w.Hostname, Device: device, Reason: why})
}

// onDevice is a benchmark's config for one device.
func onDevice(raw json.RawMessage, d *labmesh.Device) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	set := func(name, value string) error {
		text, err := json.Marshal(value)
		fields[name] = text
		return err
	}
	device := d.Class
	if d.UUID != "" {
		if err := set("device_uuid", d.UUID); err != nil {
			return nil, err
		}
	} else if d.Class != labmesh.ClassCPU {
		device = place(d)
	}
	if err := set("device", device); err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

// place is a device as configs name it, e.g. cuda:1.
func place(d *labmesh.Device) string { return fmt.Sprintf("%s:%d", d.Class, d.Index) }

// title is a device as people call it.
func title(d *labmesh.Device) string {
	if name := words(d.Name); name != "" {
		return name
	}
	return place(d)
}

// words is s with single blanks, as two drivers may write one name.
func words(s string) string { return strings.Join(strings.Fields(s), " ") }

func host(w *labmesh.Worker) string {
	if w.Hostname != "" {
		return w.Hostname
	}
	return string(w.ID)
}

// with is pairs with one more, unless they have that key. It leaves them alone.
func with(key, value string, pairs map[string]string) map[string]string {
	out := map[string]string{key: value}
	maps.Copy(out, pairs)
	return out
}

func cut(s string) string {
	if runes := []rune(s); len(runes) > labelCharsMax {
		return string(runes[:labelCharsMax])
	}
	return s
}

// keyFor is an idempotency key of its own for the task for value.
func keyFor(key, value string) string {
	sum := sha256.Sum256([]byte(value))
	mark := "/" + hex.EncodeToString(sum[:8])
	return key[:min(len(key), keyBytesMax-len(mark))] + mark
}
