package node

import (
	"reflect"
	"testing"

	"labmesh"
	"labmesh/bench"
	"labmesh/exec/bench/engines"
)

func TestWhatAMachineOffersFollowsItsEngines(t *testing.T) {
	t.Parallel()
	facts := labmesh.Capabilities{
		Hardware: []string{"cpu"}, Tools: map[string]string{"git": "2.4"}, Absent: map[string]string{},
		Devices: []labmesh.Device{
			{Class: "cpu", Level: labmesh.DeviceUsable},
			{Class: "cuda", Name: "H100", Level: labmesh.DeviceDriver},
		},
	}
	before := copied(facts)
	torch := engines.Found{
		Engine: labmesh.Engine{Name: "torch", Version: "2.11", Path: "/usr/bin/python3"}, Devices: []bench.Device{{Class: "cpu"}, {Class: "cuda", Name: "H100"}},
		Tools: map[string]string{"transformers": "5.1"},
	}
	onnx := engines.Found{Engine: labmesh.Engine{Name: "onnxruntime", Reason: "no usable onnxruntime"}}

	c := copied(facts)
	equip(&c, []engines.Found{torch, onnx})
	if want := map[string]string{"git": "2.4", "torch": "2.11", "transformers": "5.1"}; !reflect.DeepEqual(c.Tools, want) {
		t.Errorf("tools %v, want %v", c.Tools, want)
	}
	if d := c.Devices[1]; d.Level != labmesh.DeviceUsable || len(d.Engines) != 1 {
		t.Errorf("the GPU is %+v", d)
	}
	if len(c.Engines) != 2 || c.Engines[1].Reason == "" {
		t.Errorf("engines %+v", c.Engines)
	}
	if !reflect.DeepEqual(facts, before) {
		t.Errorf("what the machine is has changed: %+v", facts)
	}
	again := copied(facts) // torch was removed
	equip(&again, []engines.Found{onnx})
	if again.Tools["torch"] != "" || again.Devices[1].Level == labmesh.DeviceUsable || again.Devices[1].Reason == "" {
		t.Errorf("without torch: %+v", again)
	}
}
