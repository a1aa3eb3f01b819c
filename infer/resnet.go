package infer

import (
	"fmt"
	"math"

	"labmesh/infer/gemm"
)

// resnetSize is what tells one ResNet from another.
type resnetSize struct {
	blocks     [4]int // in each stage
	bottleneck bool   // blocks of three convolutions rather than two
}

const (
	resnetClasses = 1000
	resnetEps     = 1e-5
)

// resnet is torchvision's ResNet (v1.5: the 3×3 convolution of a bottleneck has the stride).
// Activations lie with the channels of a pixel together, a row a pixel; batch norm is folded into the weights.
type resnet struct {
	image  int // pixels of a side
	pixels source
	stem   conv
	stages [][]residual
	head   linear
}

type residual struct {
	convs []conv
	down  *conv // of what goes past the block, where its shape changes
}

type conv struct {
	linear
	kernel, stride, pad int
	in                  int
}

func loadResNet(l *loader, size resnetSize, image int) *resnet {
	r := &resnet{image: image, pixels: normal(l.seed, "pixel_values", 0, 1), stem: l.conv("conv1", "bn1", 3, 64, 7, 2)}
	in := 64
	for stage, blocks := range size.blocks {
		width := 64 << stage
		var made []residual
		for i := range blocks {
			stride := 1
			if i == 0 && stage > 0 {
				stride = 2
			}
			at := fmt.Sprintf("layer%d.%d.", stage+1, i)
			var block residual
			out := width
			if size.bottleneck {
				out = 4 * width
				block.convs = []conv{l.conv(at+"conv1", at+"bn1", in, width, 1, 1), l.conv(at+"conv2", at+"bn2", width, width, 3, stride), l.conv(at+"conv3", at+"bn3", width, out, 1, 1)}
			} else {
				block.convs = []conv{l.conv(at+"conv1", at+"bn1", in, width, 3, stride), l.conv(at+"conv2", at+"bn2", width, width, 3, 1)}
			}
			if stride > 1 || in != out {
				down := l.conv(at+"downsample.0", at+"downsample.1", in, out, 1, stride)
				block.down = &down
			}
			made, in = append(made, block), out
		}
		r.stages = append(r.stages, made)
	}
	r.head = l.linear(in, resnetClasses, 0.01, "fc")
	return r
}

// conv makes a convolution with the batch norm that follows it: with weights w, scale g = gamma/√(variance + eps) and
// means m it is w·g, and beta - m·g to add.
func (l *loader) conv(name, norm string, in, out, kernel, stride int) conv {
	area := kernel * kernel
	w := l.parameter(name+".weight", 0, math.Sqrt(2/float64(in*area)), out, in, kernel, kernel)
	gamma, beta := l.parameter(norm+".weight", 1, 0.1, out), l.parameter(norm+".bias", 0, 0.1, out)
	mean, variance := l.learnt(norm+".running_mean", 0, 0.1, out), l.learnt(norm+".running_var", 1, 0.1, out)
	scale := make([]float64, out)
	for c := range scale {
		scale[c] = float64(gamma.at(c)) / math.Sqrt(float64(variance.at(c))+resnetEps)
	}
	return conv{
		linear: l.matrix(area*in, out,
			func(c int, to []float32) { // a row for each pixel under the kernel and each channel of it
				for i := range to {
					to[i%area*in+i/area] = float32(float64(w.at(c*len(to)+i)) * scale[c])
				}
			},
			func(c int) float32 { return float32(float64(beta.at(c)) - float64(float64(mean.at(c))*scale[c])) }),
		kernel: kernel, stride: stride, pad: kernel / 2, in: in,
	}
}

// feature is a batch of images in the making: side × side pixels of each.
type feature struct {
	*buffer
	side int
}

func (r *resnet) plan(p *plan) (outputs []*buffer) {
	input := feature{p.take(p.batch*r.image*r.image, 3), r.image}
	input.stride = 3 // nothing between pixels: a row under the first kernel is one copy
	// It is kept, and filled before the first iteration: inputs are in place when the clock starts.
	p.inputs = append(p.inputs, func() { r.draw(p, input.buffer) })
	x := p.convolve(input, r.stem, nil, true)
	pooled := p.maxPool(x)
	p.drop(x.buffer)
	x = pooled
	for _, stage := range r.stages {
		for _, block := range stage {
			x = block.plan(p, x)
		}
	}
	mean := p.meanPool(x)
	p.drop(x.buffer)
	out := p.take(p.batch, resnetClasses)
	p.product(mean, out, r.head, nil)
	return []*buffer{out}
}

func (b residual) plan(p *plan, x feature) feature {
	past := x
	if b.down != nil {
		past = p.convolve(x, *b.down, nil, false)
	}
	y := x
	for i, c := range b.convs {
		var add *buffer
		if i == len(b.convs)-1 {
			add = past.buffer
		}
		z := p.convolve(y, c, add, true)
		if y != x {
			p.drop(y.buffer)
		}
		y = z
	}
	if past != x {
		p.drop(past.buffer)
	}
	p.drop(x.buffer)
	return y
}

// draw makes the images.
func (r *resnet) draw(p *plan, input *buffer) {
	row := r.image * 3
	p.pool.each(p.batch*r.image, func(_ *gemm.Thread, i int) {
		r.pixels.fill(input.data[i*row:(i+1)*row], i*row)
	})
}

// gatherMost is how many floats of pixels under a kernel are gathered before they are multiplied.
const gatherMost = 192 << 10

// convolve adds a convolution. What is under the kernel at a pixel of the result is gathered into a row, unless it is
// a row already; add is added to the result.
func (p *plan) convolve(x feature, c conv, add *buffer, relu bool) feature {
	side := (x.side+2*c.pad-c.kernel)/c.stride + 1
	out := feature{p.take(p.batch*side*side, c.m.N), side}
	then := convolved(add, relu)
	if c.kernel == 1 && c.stride == 1 {
		p.product(x.buffer, out.buffer, c.linear, then)
		return out
	}
	p.count(out.rows, c.m)
	most := min(max(gatherMost/c.m.K, 4*someRows), rowsMost)
	under := p.take(len(p.pool.threads), most*stride(c.m.K))
	parts, of := p.share(out.rows, most, c.m.Panels())
	p.step(parts, func(t *gemm.Thread, i int) {
		b, rows, apart := of(i), under.row(t.Index), stride(c.m.K)
		for r := range b.rows {
			c.gather(rows[r*apart:r*apart+c.m.K], x, side, b.row+r)
		}
		t.Multiply(out.data[b.row*out.stride:], out.stride, rows, apart, b.rows, c.m, c.bias, b.from, b.to)
		finish(t, out.buffer, b, c.m.N, then)
	})
	p.drop(under)
	return out
}

func convolved(add *buffer, relu bool) after {
	switch {
	case add != nil:
		return func(t *gemm.Thread, row int, out []float32, first int) {
			t.AddReLU(out, add.row(row)[first:first+len(out)])
		}
	case relu:
		return reluRow
	}
	return nil
}

// gather copies what is under the kernel at pixel number at of the result; outside the image all is 0.
func (c conv) gather(to []float32, x feature, side, at int) {
	item, y, left := at/(side*side), at/side%side*c.stride-c.pad, at%side*c.stride-c.pad
	for ky := range c.kernel {
		line := to[ky*c.kernel*c.in : (ky+1)*c.kernel*c.in]
		if y+ky < 0 || y+ky >= x.side {
			clear(line)
			continue
		}
		pixel := (item*x.side+y+ky)*x.side + left
		if left >= 0 && left+c.kernel <= x.side && x.stride == c.in {
			copy(line, x.data[pixel*x.stride:])
			continue
		}
		for kx := range c.kernel {
			spot := line[kx*c.in : (kx+1)*c.in]
			if left+kx < 0 || left+kx >= x.side {
				clear(spot)
				continue
			}
			copy(spot, x.data[(pixel+kx)*x.stride:])
		}
	}
}

// maxPool adds the largest of each 3×3 pixels, every other one.
func (p *plan) maxPool(x feature) feature {
	side := (x.side-1)/2 + 1
	out := feature{p.take(p.batch*side*side, x.cols), side}
	p.step(p.batch*side, func(t *gemm.Thread, i int) {
		item, top := i/side, i%side*2-1
		for column := range side {
			row, fresh := out.row(i*side+column), true
			for y := max(top, 0); y < min(top+3, x.side); y++ {
				for z := max(column*2-1, 0); z < min(column*2+2, x.side); z++ {
					from := x.row((item*x.side+y)*x.side + z)
					if fresh {
						copy(row, from)
						fresh = false
						continue
					}
					t.Max(row, from)
				}
			}
		}
	})
	return out
}

// meanPool adds the mean over all pixels.
func (p *plan) meanPool(x feature) *buffer {
	out := p.take(p.batch, x.cols)
	p.step(p.batch, func(t *gemm.Thread, i int) {
		row, pixels := out.row(i), x.side*x.side
		clear(row)
		for r := range pixels {
			t.Add(row, x.row(i*pixels+r))
		}
		t.Scale(row, 1/float32(pixels))
	})
	return out
}
