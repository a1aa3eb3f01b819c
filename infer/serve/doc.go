// Package serve is the runner of the built-in engine: it speaks the protocol of package
// bench about models of package infer. It is made to be a process of its own, which `labmesh internal
// bench-runner` is: it sets how many threads of Go run, and counts the CPU time and memory of the whole process.
//
// LABMESH_ENGINE_KERNEL in the environment chooses the kernel (avx512, avx2 or scalar); without
// it the fastest is taken.
package serve
