//go:build !linux

package infer

import "github.com/shirou/gopsutil/v4/mem"

// mapFloats takes memory of the heap: other systems' are asked for no more than they have.
func mapFloats(bytes int) ([]byte, []float32, error) {
	return nil, make([]float32, bytes/floatBytes), nil
}

func unmapFloats([]byte) {} // the collector finds it

// freeMemory is how many bytes the machine has available.
func freeMemory() (bytes uint64, known bool) {
	vm, err := mem.VirtualMemory()
	if err != nil {
		return 0, false
	}
	return vm.Available, true
}
