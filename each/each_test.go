package each_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/bench"
	"labmesh/each"
)

var kinds = []labmesh.Kind{labmesh.Benchmark, labmesh.Custom}

func cpu() labmesh.Device {
	return labmesh.Device{Class: "cpu", Name: "a processor", MemoryGB: 64, Level: labmesh.DeviceUsable, Engines: []string{"labmesh-go"}}
}

func gpu(index int, name string, level labmesh.DeviceLevel) labmesh.Device {
	d := labmesh.Device{Class: "cuda", Index: index, UUID: fmt.Sprint("GPU-", name, index), Name: name, MemoryGB: 24, Compute: "8.6", Level: level, Engines: []string{"torch"}}
	if level != labmesh.DeviceUsable {
		d.Reason, d.Engines = "torch does not see it", nil
	}
	return d
}

func worker(id string, tags map[string]string, devices ...labmesh.Device) labmesh.Worker {
	w := labmesh.Worker{ID: labmesh.WorkerID(id), Hostname: "host-" + id, Slots: 4, Kinds: kinds, Status: labmesh.WorkerActive, Tags: tags}
	w.Capabilities = labmesh.Capabilities{Hardware: []string{"cpu"}, Memory: labmesh.Memory{TotalGB: 64}, Devices: devices}
	for _, d := range devices {
		if d.Class != "cpu" {
			w.Capabilities.Hardware = append(w.Capabilities.Hardware, d.Class)
		}
	}
	return w
}

// lab is a mesh of odd machines.
func lab() []labmesh.Worker {
	gone := worker("w5", map[string]string{"site": "hall"}, cpu(), gpu(0, "RTX 3090", labmesh.DeviceUsable))
	gone.Status, gone.Reason = labmesh.WorkerOffline, "not heard of"
	return []labmesh.Worker{
		gone,
		worker("w2", map[string]string{"site": "hall"}, cpu(), gpu(0, "RTX 3090", labmesh.DeviceUsable), gpu(1, "RTX  3090", labmesh.DeviceUsable)),
		worker("w1", map[string]string{"site": "attic"}, cpu()),
		worker("w3", map[string]string{"site": "hall"}, cpu(), gpu(0, "H100", labmesh.DeviceUsable), gpu(1, "RTX 3090", labmesh.DeviceUsable)),
		worker("w4", nil, cpu(), gpu(0, "GTX 750", labmesh.DeviceDriver)),
	}
}

func benchmark(config string, hardware ...string) labmesh.Spec {
	return labmesh.Spec{Kind: labmesh.Benchmark, Config: json.RawMessage(config), Requirements: labmesh.Requirements{Hardware: hardware}, Labels: map[string]string{"a": "b"}, IdempotencyKey: "k"}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	custom := labmesh.Spec{Kind: labmesh.Custom, Config: json.RawMessage(`{"name":"nvidia-smi"}`)}
	for name, c := range map[string]struct {
		spec labmesh.Spec
		by   string
		want []string // what for, the worker, the device of the config
		left []string
	}{
		"a benchmark for each worker": {benchmark(`{"model":"mlp"}`), "worker",
			[]string{"host-w1 w1 ", "host-w2 w2 ", "host-w3 w3 ", "host-w4 w4 "}, []string{"host-w5: it is offline (not heard of)"}},
		"for each worker with a GPU": {benchmark(`{"model":"mlp"}`, "cuda"), "worker",
			[]string{"host-w2 w2 ", "host-w3 w3 "}, []string{"host-w1: it has no cuda", "host-w4: it has cuda (GTX 750, driver), but torch does not see it", "host-w5: it is offline"}},
		"for each device": {benchmark(`{"model":"mlp"}`), "device",
			[]string{"host-w1 cpu:0 a processor w1 cpu", "host-w2 cpu:0 a processor w2 cpu", "host-w2 cuda:0 RTX 3090 w2 cuda GPU-RTX 30900", "host-w2 cuda:1 RTX 3090 w2 cuda GPU-RTX  30901",
				"host-w3 cpu:0 a processor w3 cpu", "host-w3 cuda:0 H100 w3 cuda GPU-H1000", "host-w3 cuda:1 RTX 3090 w3 cuda GPU-RTX 30901", "host-w4 cpu:0 a processor w4 cpu"},
			[]string{"host-w4 GTX 750: it has cuda", "host-w5: it is offline"}},
		"for each GPU": {benchmark(`{"model":"mlp"}`, "cuda"), "device",
			[]string{"host-w2 cuda:0 RTX 3090 w2 cuda GPU-RTX 30900", "host-w2 cuda:1 RTX 3090 w2 cuda GPU-RTX  30901", "host-w3 cuda:0 H100 w3 cuda GPU-H1000", "host-w3 cuda:1 RTX 3090 w3 cuda GPU-RTX 30901"},
			[]string{"host-w1: it has no cuda", "host-w4 GTX 750: it has cuda", "host-w5: it is offline"}},
		"for each kind of GPU": {benchmark(`{"model":"mlp","device":"cuda"}`), "gpu.name",
			[]string{"RTX 3090 w2 cuda GPU-RTX 30900", "H100 w3 cuda GPU-H1000"},
			[]string{"host-w1: it has no cuda", "host-w4 GTX 750: it has cuda", "host-w5: it is offline"}},
		"for each site": {benchmark(`{"model":"mlp"}`), "tag.site",
			[]string{"attic  ", "hall  "}, []string{"host-w4: it has no tag site", "host-w5: it is offline"}},
		"a program for each kind of GPU whose driver answers": {custom, "gpu.name",
			[]string{"RTX 3090 w2 ", "H100 w3 ", "GTX 750 w4 "}, []string{"host-w1: it has no GPU", "host-w5: it is offline"}},
		"what no worker can run": {labmesh.Spec{Kind: labmesh.Test}, "worker", nil,
			[]string{"host-w1: it runs no test tasks", "host-w2: it runs", "host-w3: it runs", "host-w4: it runs", "host-w5: it is offline"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tasks, left, refused := each.Expand(c.spec, c.by, lab())
			if refused != nil {
				t.Fatal(refused)
			}
			var got []string
			for _, x := range tasks {
				var conf struct {
					Device string `json:"device"`
					UUID   string `json:"device_uuid"`
				}
				_ = json.Unmarshal(x.Spec.Config, &conf)
				if x.Worker == "" {
					conf.Device = ""
				}
				if c.by == each.Worker {
					conf.Device = ""
				}
				line := strings.TrimRight(fmt.Sprintf("%s %s %s %s", x.For, x.Worker, conf.Device, conf.UUID), " ")
				got = append(got, line)
				if x.Spec.Requirements.WorkerID != x.Worker || x.Spec.Labels[each.Label] != x.For {
					t.Errorf("%s: requirements %+v, labels %v", x.For, x.Spec.Requirements, x.Spec.Labels)
				}
				if site := strings.HasPrefix(c.by, "tag."); site && x.Spec.Requirements.Tags["site"] != x.For {
					t.Errorf("%s: tags %v", x.For, x.Spec.Requirements.Tags)
				}
			}
			for i := range c.want {
				c.want[i] = strings.TrimRight(c.want[i], " ")
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("tasks\n%q, want\n%q", got, c.want)
			}
			var named []string
			for _, l := range left {
				named = append(named, strings.TrimSpace(l.Hostname+" "+l.Device)+": "+l.Reason)
			}
			if !slices.EqualFunc(named, c.left, strings.HasPrefix) {
				t.Errorf("left out\n%q, want\n%q", named, c.left)
			}
			if c.spec.Labels != nil && (len(c.spec.Labels) != 1 || c.spec.IdempotencyKey != "k") {
				t.Error("the task itself was changed")
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	named := benchmark(`{"model":"mlp"}`)
	named.TaskID = "t1"
	for name, c := range map[string]struct {
		spec  labmesh.Spec
		by    string
		field string
	}{
		"no such thing":           {benchmark(`{"model":"mlp"}`), "gpu", "for_each"},
		"a tag without a key":     {benchmark(`{"model":"mlp"}`), "tag.", "for_each"},
		"nothing":                 {benchmark(`{"model":"mlp"}`), "", "for_each"},
		"one id for many":         {named, "worker", "task_id"},
		"devices of no benchmark": {labmesh.Spec{Kind: labmesh.Custom}, "device", "for_each"},
		"a device already":        {benchmark(`{"model":"mlp","device":"cuda:1"}`), "device", "config.device"},
		"a UUID already":          {benchmark(`{"model":"mlp","device_uuid":"GPU-1"}`), "gpu.name", "config.device"},
		"no config":               {benchmark(`[]`), "gpu.name", "config"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tasks, _, refused := each.Expand(c.spec, c.by, lab())
			if refused == nil || refused.Field != c.field || len(tasks) > 0 {
				t.Errorf("%d tasks, %+v; want %s refused", len(tasks), refused, c.field)
			}
		})
	}
}

// TestExpansionsHoldTogether: whatever the mesh, each task goes to a worker that
// it fits, no two are for the same thing, every worker has a task, shares one, or is named
// with a reason, and the order of the workers does not matter.
func TestExpansionsHoldTogether(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var workers []labmesh.Worker
		for i := range rapid.IntRange(0, 6).Draw(t, "workers") {
			devices := []labmesh.Device{cpu()}
			for k := range rapid.IntRange(0, 3).Draw(t, "gpus") {
				name := rapid.SampledFrom([]string{"A", "B", ""}).Draw(t, "name")
				d := gpu(k, name, rapid.SampledFrom([]labmesh.DeviceLevel{labmesh.DeviceUsable, labmesh.DeviceDriver, labmesh.DevicePresent, labmesh.DeviceDeclared}).Draw(t, "level"))
				d.UUID = fmt.Sprintf("%d-%d", i, k)
				d.Class = rapid.SampledFrom([]string{"cuda", "rocm"}).Draw(t, "class")
				devices = append(devices, d)
			}
			w := worker(fmt.Sprint("w", i), map[string]string{rapid.SampledFrom([]string{"site", "rack"}).Draw(t, "key"): rapid.SampledFrom([]string{"1", "2"}).Draw(t, "value")}, devices...)
			w.Status = rapid.SampledFrom([]labmesh.WorkerStatus{labmesh.WorkerActive, labmesh.WorkerActive, labmesh.WorkerOffline, labmesh.WorkerDraining}).Draw(t, "status")
			workers = append(workers, w)
		}
		by := rapid.SampledFrom([]string{each.Worker, each.Device, each.GPUName, "tag.site"}).Draw(t, "by")
		spec := benchmark(`{"model":"mlp","iterations":7}`, rapid.SampledFrom([][]string{nil, {"cpu"}, {"cuda"}, {"rocm"}}).Draw(t, "hardware")...)
		tasks, left, refused := each.Expand(spec, by, workers)
		if refused != nil {
			t.Fatal(refused)
		}
		keys, uuids, met := map[string]bool{}, map[string]bool{}, map[labmesh.WorkerID]bool{}
		for _, x := range tasks {
			if keys[x.Spec.IdempotencyKey] {
				t.Fatalf("two tasks with the key %s", x.Spec.IdempotencyKey)
			}
			keys[x.Spec.IdempotencyKey] = true
			conf, refused := bench.Parse(x.Spec.Config)
			if refused != nil || conf.Iterations != 7 {
				t.Fatalf("config %s: %v", x.Spec.Config, refused)
			}
			if conf.DeviceUUID != "" && uuids[conf.DeviceUUID] {
				t.Fatalf("two tasks for %s", conf.DeviceUUID)
			}
			uuids[conf.DeviceUUID] = true
			placed := x.Spec
			bench.Place(&placed)
			fits := 0
			for i := range workers {
				if w := &workers[i]; placed.Requirements.Fits(labmesh.Benchmark, w) && w.Status == labmesh.WorkerActive && (x.Worker == "" || x.Worker == w.ID) {
					fits++
					met[w.ID] = true
				}
			}
			if fits == 0 {
				t.Fatalf("%s fits no worker: %+v", x.For, placed.Requirements)
			}
		}
		for _, l := range left {
			if l.Reason == "" {
				t.Fatalf("%+v has no reason", l)
			}
			met[l.Worker] = true
		}
		for _, w := range workers {
			if !met[w.ID] && by != each.GPUName { // one that has the kind of GPU of another
				t.Fatalf("%s is neither used nor left out", w.ID)
			}
		}
		slices.Reverse(workers)
		again, leftAgain, _ := each.Expand(spec, by, workers)
		if !reflect.DeepEqual(again, tasks) || !reflect.DeepEqual(leftAgain, left) {
			t.Fatal("the order of the workers matters")
		}
	})
}
