package gemm

import "golang.org/x/sys/cpu"

// native are the kernels in assembly that this processor and its system can run.
func native() (out []*Kernel) {
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL { // not on the early ones that have it slow
		out = append(out, &Kernel{
			Name: "avx512", rows: 12, cols: 32, width: 16, zeros: make([]float32, 32),
			tiles: []tile{
				avx512Tile1, avx512Tile2, avx512Tile3, avx512Tile4, avx512Tile5, avx512Tile6,
				avx512Tile7, avx512Tile8, avx512Tile9, avx512Tile10, avx512Tile11, avx512Tile12,
			},
			relu: avx512ReLU, addReLU: avx512AddReLU, max: avx512Max, gelu: avx512GELU, largest: avx512Largest, expSum: avx512ExpSum,
			scale: avx512Scale, addSum: avx512AddSum, squares: avx512Squares, normalise: avx512Normalise,
		})
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		out = append(out, &Kernel{
			Name: "avx2", rows: 6, cols: 16, width: 8, zeros: make([]float32, 16),
			tiles: []tile{avx2Tile1, avx2Tile2, avx2Tile3, avx2Tile4, avx2Tile5, avx2Tile6},
			relu:  avx2ReLU, addReLU: avx2AddReLU, max: avx2Max, gelu: avx2GELU, largest: avx2Largest, expSum: avx2ExpSum,
			scale: avx2Scale, addSum: avx2AddSum, squares: avx2Squares, normalise: avx2Normalise,
		})
	}
	return out
}
