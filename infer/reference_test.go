package infer

import (
	"math"
)

// reference computes models as their definitions say, in float64 and without any of the engine's
// ways of being fast: it knows the parameters by name and nothing else.
type reference map[string]parameter

func references(made []parameter) reference {
	r := reference{}
	for _, p := range made {
		r[p.name] = p
	}
	return r
}

func (r reference) values(name string) []float64 {
	p, ok := r[name]
	if !ok {
		panic("the model has no " + name)
	}
	out := make([]float64, p.len())
	for i := range out {
		out[i] = float64(p.source.at(i))
	}
	return out
}

// dense is x·Wᵀ + b for each row of x.
func (r reference) dense(x [][]float64, name string) [][]float64 {
	w, b := r.values(name+".weight"), r.values(name+".bias")
	out := make([][]float64, len(x))
	for i, row := range x {
		out[i] = append([]float64(nil), b...)
		for o := range b {
			for j, v := range row {
				out[i][o] += v * w[o*len(row)+j]
			}
		}
	}
	return out
}

func (r reference) norm(x [][]float64, name string) {
	g, b := r.values(name+".weight"), r.values(name+".bias")
	for _, row := range x {
		var mean, variance float64
		for _, v := range row {
			mean += v / float64(len(row))
		}
		for _, v := range row {
			variance += (v - mean) * (v - mean) / float64(len(row))
		}
		for i := range row {
			row[i] = (row[i]-mean)/math.Sqrt(variance+1e-12)*g[i] + b[i]
		}
	}
}

func plus(a, b [][]float64) {
	for i := range a {
		for j := range a[i] {
			a[i][j] += b[i][j]
		}
	}
}

// bert computes hidden states and pooler output of one item, given as token numbers.
func (r reference) bert(tokens []int, width, layers, heads int) (hidden [][]float64, pooled []float64) {
	words, places, types := r.values("embeddings.word_embeddings.weight"), r.values("embeddings.position_embeddings.weight"), r.values("embeddings.token_type_embeddings.weight")
	var x [][]float64
	for i, t := range tokens {
		row := make([]float64, width)
		for j := range row {
			row[j] = words[t*width+j] + places[i*width+j] + types[j]
		}
		x = append(x, row)
	}
	r.norm(x, "embeddings.LayerNorm")
	for l := range layers {
		at := "encoder.layer." + string(rune('0'+l)) + "."
		q, k, v := r.dense(x, at+"attention.self.query"), r.dense(x, at+"attention.self.key"), r.dense(x, at+"attention.self.value")
		out := r.dense(attention(q, k, v, heads), at+"attention.output.dense")
		plus(x, out)
		r.norm(x, at+"attention.output.LayerNorm")
		up := r.dense(x, at+"intermediate.dense")
		for i := range up {
			for j, v := range up[i] {
				up[i][j] = v / 2 * (1 + math.Erf(v/math.Sqrt2))
			}
		}
		plus(x, r.dense(up, at+"output.dense"))
		r.norm(x, at+"output.LayerNorm")
	}
	pooled = r.dense(x[:1], "pooler.dense")[0]
	for i, v := range pooled {
		pooled[i] = math.Tanh(v)
	}
	return x, pooled
}

func attention(q, k, v [][]float64, heads int) [][]float64 {
	d := len(q[0]) / heads
	out := make([][]float64, len(q))
	for i := range q {
		out[i] = make([]float64, len(q[0]))
		for h := range heads {
			shares, sum := make([]float64, len(k)), 0.0
			for j := range k {
				var dot float64
				for c := h * d; c < (h+1)*d; c++ {
					dot += q[i][c] * k[j][c]
				}
				shares[j] = math.Exp(dot / math.Sqrt(float64(d)))
				sum += shares[j]
			}
			for j := range v {
				for c := h * d; c < (h+1)*d; c++ {
					out[i][c] += shares[j] / sum * v[j][c]
				}
			}
		}
	}
	return out
}

// image is one image or what became of it: channels of side × side.
type image struct {
	channels [][]float64
	side     int
}

func (r reference) conv(x image, name string, kernel, stride int) image {
	w := r.values(name + ".weight")
	in, pad := len(x.channels), kernel/2
	out := image{make([][]float64, r[name+".weight"].shape[0]), (x.side+2*pad-kernel)/stride + 1}
	for o := range out.channels {
		out.channels[o] = make([]float64, out.side*out.side)
		for at := range out.channels[o] {
			y, z := at/out.side*stride-pad, at%out.side*stride-pad
			for c := range in {
				for tap := range kernel * kernel {
					ty, tz := y+tap/kernel, z+tap%kernel
					if ty >= 0 && ty < x.side && tz >= 0 && tz < x.side {
						out.channels[o][at] += w[(o*in+c)*kernel*kernel+tap] * x.channels[c][ty*x.side+tz]
					}
				}
			}
		}
	}
	return out
}

func (r reference) batchNorm(x image, name string) image {
	g, b, mean, variance := r.values(name+".weight"), r.values(name+".bias"), r.values(name+".running_mean"), r.values(name+".running_var")
	for c, values := range x.channels {
		for i, v := range values {
			values[i] = (v-mean[c])/math.Sqrt(variance[c]+1e-5)*g[c] + b[c]
		}
	}
	return x
}

func (x image) relu() image {
	for _, values := range x.channels {
		for i, v := range values {
			values[i] = max(v, 0)
		}
	}
	return x
}

func (x image) maxPool() image {
	out := image{make([][]float64, len(x.channels)), (x.side-1)/2 + 1}
	for c, values := range x.channels {
		for y := range out.side {
			for z := range out.side {
				top := math.Inf(-1)
				for tap := range 9 {
					ty, tz := y*2-1+tap/3, z*2-1+tap%3
					if ty >= 0 && ty < x.side && tz >= 0 && tz < x.side {
						top = max(top, values[ty*x.side+tz])
					}
				}
				out.channels[c] = append(out.channels[c], top)
			}
		}
	}
	return out
}

// resnet computes the classes of one image.
func (r reference) resnet(x image, blocks [4]int, bottleneck bool) []float64 {
	x = r.batchNorm(r.conv(x, "conv1", 7, 2), "bn1").relu().maxPool()
	for stage, n := range blocks {
		for i := range n {
			at, stride := "layer"+string(rune('1'+stage))+"."+string(rune('0'+i))+".", 1
			if i == 0 && stage > 0 {
				stride = 2
			}
			past, y := x, x
			if bottleneck {
				y = r.batchNorm(r.conv(y, at+"conv1", 1, 1), at+"bn1").relu()
				y = r.batchNorm(r.conv(y, at+"conv2", 3, stride), at+"bn2").relu()
				y = r.batchNorm(r.conv(y, at+"conv3", 1, 1), at+"bn3")
			} else {
				y = r.batchNorm(r.conv(y, at+"conv1", 3, stride), at+"bn1").relu()
				y = r.batchNorm(r.conv(y, at+"conv2", 3, 1), at+"bn2")
			}
			if _, ok := r[at+"downsample.0.weight"]; ok {
				past = r.batchNorm(r.conv(x, at+"downsample.0", 1, stride), at+"downsample.1")
			}
			plus(y.channels, past.channels)
			x = y.relu()
		}
	}
	mean := make([]float64, len(x.channels))
	for c, values := range x.channels {
		for _, v := range values {
			mean[c] += v / float64(len(values))
		}
	}
	return r.dense([][]float64{mean}, "fc")[0]
}

func (r reference) mlp(x []float64) []float64 {
	rows := [][]float64{x}
	for i, name := range []string{"fc1", "fc2", "fc3"} {
		rows = r.dense(rows, name)
		for j, v := range rows[0] {
			if i < 2 {
				rows[0][j] = max(v, 0)
			}
		}
	}
	return rows[0]
}
