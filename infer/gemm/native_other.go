//go:build !amd64

package gemm

// native are the kernels in assembly, which there are none of here.
func native() []*Kernel { return nil }
