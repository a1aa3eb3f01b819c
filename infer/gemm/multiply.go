package gemm

import "unsafe"

// Matrix is the second factor of a product, packed for one kernel: K rows and N columns
// in panels of some columns, each with its rows one after another; the last panel is filled up with zeros.
type Matrix struct {
	K, N int
	Data []float32
	cols int
}

// Len is how many floats a matrix of k rows and n columns takes when it is packed.
func (k *Kernel) Len(rows, n int) int { return rows * k.Panels(n) * k.cols }

// Panels is how many panels n columns take.
func (k *Kernel) Panels(n int) int { return (n + k.cols - 1) / k.cols }

// Columns is how many columns a panel has.
func (k *Kernel) Columns() int { return k.cols }

// Matrix is a matrix of rows by n that is packed in data, which has [Kernel.Len] floats.
func (k *Kernel) Matrix(data []float32, rows, n int) Matrix {
	return Matrix{K: rows, N: n, Data: data[:k.Len(rows, n)], cols: k.cols}
}

// Panels is how many panels m has.
func (m Matrix) Panels() int { return len(m.Data) / max(m.K*m.cols, 1) }

// Fill gives panel p of m its values, a column at a time: value puts those of a column into to.
func (m Matrix) Fill(p int, value func(column int, to []float32)) {
	data, one := m.Data[p*m.K*m.cols:(p+1)*m.K*m.cols], make([]float32, m.K)
	for j := range min(m.cols, m.N-p*m.cols) {
		value(p*m.cols+j, one)
		for r, v := range one {
			data[r*m.cols+j] = v
		}
	}
}

// Pack makes m of rows that lie ld apart.
func (m Matrix) Pack(from []float32, ld int) {
	for p := range m.Panels() {
		to, first := m.Data[p*m.K*m.cols:], p*m.cols
		width := min(m.cols, m.N-first)
		for r := range m.K {
			n := copy(to[r*m.cols:r*m.cols+width], from[r*ld+first:])
			clear(to[r*m.cols+n : (r+1)*m.cols])
		}
	}
}

// PackTransposed makes m of columns that lie ld apart.
func (m Matrix) PackTransposed(from []float32, ld int) {
	for p := range m.Panels() {
		to, first := m.Data[p*m.K*m.cols:(p+1)*m.K*m.cols], p*m.cols
		width := min(m.cols, m.N-first)
		if width < m.cols {
			clear(to)
		}
		for j := range width {
			for r, v := range from[(first+j)*ld : (first+j)*ld+m.K] {
				to[r*m.cols+j] = v
			}
		}
	}
}

// depthMax is how many rows of B are multiplied before the next columns are: a panel
// of them and as many columns of A stay in the second-level cache meanwhile.
const depthMax = 512

// Thread is a kernel with the room that one goroutine needs.
type Thread struct {
	*Kernel
	Index int
	edge  []float32 // a tile of which only some columns are wanted
}

// Thread makes the room that goroutine number index needs.
func (k *Kernel) Thread(index int) *Thread {
	return &Thread{Kernel: k, Index: index, edge: make([]float32, k.rows*k.cols)}
}

// Multiply sets the columns of c that panels from to to of b stand for to bias + a·b. Rows of a and c, of
// which there are m, lie lda and ldc apart; bias has a value for every column of whole panels, or is nil.
func (t *Thread) Multiply(c []float32, ldc int, a []float32, lda, m int, b Matrix, bias []float32, from, to int) {
	if m == 0 || b.K == 0 || from >= to {
		return
	}
	last := min(to*b.cols, b.N)
	_, _, _ = a[(m-1)*lda+b.K-1], c[(m-1)*ldc+last-1], b.Data[to*b.K*b.cols-1]
	if bias != nil {
		_ = bias[to*b.cols-1]
	}
	for k := 0; k < b.K; k += depthMax {
		depth := min(depthMax, b.K-k)
		for p := from; p < to; p++ {
			t.panel(c[p*b.cols:], ldc, a[k:], lda, m, depth, b.Data[(p*b.K+k)*b.cols:], min(b.cols, b.N-p*b.cols), t.start(bias, p, k))
		}
	}
}

// start is the row that the first pass over a panel begins with; nil for later ones, which go on with c.
func (t *Thread) start(bias []float32, p, k int) []float32 {
	switch {
	case k > 0:
		return nil
	case bias == nil:
		return t.zeros
	}
	return bias[p*t.cols : (p+1)*t.cols]
}

// panel multiplies m rows with one panel of width columns, a tile at a time. The rows are
// shared out so that tiles differ by one row at most: full ones are fastest, but nearly full ones nearly.
func (t *Thread) panel(c []float32, ldc int, a []float32, lda, m, depth int, b []float32, width int, start []float32) {
	tiles := (m + t.rows - 1) / t.rows
	for i := range tiles {
		r, end := i*m/tiles, (i+1)*m/tiles
		rows, out := end-r, c[r*ldc:]
		init, ldi := unsafe.SliceData(start), 0
		if start == nil {
			init, ldi = unsafe.SliceData(out), ldc*floatBytes
		}
		if width == t.cols {
			t.tiles[rows-1](depth, &a[r*lda], lda*floatBytes, &b[0], init, ldi, &out[0], ldc*floatBytes)
			continue
		}
		if start == nil {
			t.copy(t.edge, t.cols, out, ldc, rows, width)
			init, ldi = &t.edge[0], t.cols*floatBytes
		}
		t.tiles[rows-1](depth, &a[r*lda], lda*floatBytes, &b[0], init, ldi, &t.edge[0], t.cols*floatBytes)
		t.copy(out, ldc, t.edge, t.cols, rows, width)
	}
}

func (t *Thread) copy(to []float32, ldt int, from []float32, ldf, rows, width int) {
	for r := range rows {
		copy(to[r*ldt:r*ldt+width], from[r*ldf:])
	}
}
