// Package gemm multiplies matrices of float32 and does to vectors what neural
// networks do to them. It is one family of kernels: pure Go for every machine, AVX2
// with FMA, and AVX-512, the latter two in assembly that the program in asm writes.
//
// A product C = bias + A·B is computed in tiles of a few rows of A by one panel of B.
// A and C lie in rows with a stride; B is packed into panels beforehand ([Matrix]), since it
// is used again and again, and so that a tile reads it from front to back.
//
// A kernel may be used from many goroutines, a [Thread] from one.
package gemm

//go:generate go -C asm run . -out ../kernels_amd64.s -stubs ../stubs_amd64.go -pkg gemm
