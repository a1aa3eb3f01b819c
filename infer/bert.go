package infer

import (
	"fmt"
	"math"

	"labmesh/infer/gemm"
)

// bertSize is what tells one BERT from another.
type bertSize struct{ width, layers, heads int }

// What all BERTs have in common.
const (
	bertWords     = 30522
	bertPositions = 512
	bertTypes     = 2
	bertEps       = 1e-12
	bertSD        = 0.02 // of weights, as BERT itself begins
)

// bert is the encoder with its embeddings and pooler, as Hugging Face's BertModel.
type bert struct {
	bertSize
	length  int       // tokens of an item
	tokens  source    // of the input
	words   []float32 // one row a word
	places  []float32 // one row a position
	types   []float32
	norm    layerNorm
	encoder []bertLayer
	pooler  linear
}

type layerNorm struct{ gamma, beta []float32 }

type bertLayer struct {
	qkv, out, up, down linear
	attended, done     layerNorm
}

func loadBERT(l *loader, size bertSize, length int) *bert {
	w := size.width
	b := &bert{
		bertSize: size, length: length, tokens: normal(l.seed, "input_ids", 0, 1),
		words:  l.table("embeddings.word_embeddings.weight", 0, bertSD, bertWords, w),
		places: l.table("embeddings.position_embeddings.weight", 0, bertSD, bertPositions, w),
		types:  l.table("embeddings.token_type_embeddings.weight", 0, bertSD, bertTypes, w),
		norm:   l.layerNorm("embeddings.LayerNorm", w),
	}
	for i := range size.layers {
		at := fmt.Sprintf("encoder.layer.%d.", i)
		b.encoder = append(b.encoder, bertLayer{
			qkv:      l.linear(w, w, bertSD, at+"attention.self.query", at+"attention.self.key", at+"attention.self.value"),
			out:      l.linear(w, w, bertSD, at+"attention.output.dense"),
			attended: l.layerNorm(at+"attention.output.LayerNorm", w),
			up:       l.linear(w, 4*w, bertSD, at+"intermediate.dense"),
			down:     l.linear(4*w, w, bertSD, at+"output.dense"),
			done:     l.layerNorm(at+"output.LayerNorm", w),
		})
	}
	b.pooler = l.linear(w, w, bertSD, "pooler.dense")
	return b
}

func (l *loader) layerNorm(name string, n int) layerNorm {
	return layerNorm{l.vector(name+".weight", 1, bertSD, n), l.vector(name+".bias", 0, bertSD, n)}
}

// token is the word at position i of the input.
func (b *bert) token(i int) int { return int(b.tokens.word(i) >> 32 * bertWords >> 32) }

func (b *bert) plan(p *plan) (outputs []*buffer) {
	rows := p.batch * b.length
	x, sum := p.take(rows, b.width), p.take(rows, b.width)
	b.embed(p, x)
	for i := range b.encoder {
		layer := &b.encoder[i]
		qkv := p.take(rows, 3*b.width)
		p.product(x, qkv, layer.qkv, nil)
		context := p.take(rows, b.width)
		b.attend(p, qkv, context)
		p.drop(qkv)
		p.product(context, sum, layer.out, nil)
		p.drop(context)
		p.normalise(x, sum, layer.attended)
		wide := p.take(rows, 4*b.width)
		p.product(x, wide, layer.up, geluRow)
		p.product(wide, sum, layer.down, nil)
		p.drop(wide)
		p.normalise(x, sum, layer.done)
	}
	pooled := p.take(p.batch, b.width)
	p.count(p.batch, b.pooler.m)
	parts, of := p.share(p.batch, rowsMost, b.pooler.m.Panels())
	p.step(parts, func(t *gemm.Thread, i int) {
		at, apart := of(i), b.length*x.stride // only the first token of each item
		t.Multiply(pooled.data[at.row*pooled.stride:], pooled.stride, x.data[at.row*apart:], apart, at.rows, b.pooler.m, b.pooler.bias, at.from, at.to)
		finish(t, pooled, at, b.width, tanhRow)
	})
	return []*buffer{x, pooled}
}

func tanhRow(_ *gemm.Thread, _ int, out []float32, _ int) {
	for i, v := range out {
		out[i] = float32(math.Tanh(float64(v)))
	}
}

// someRows is how many rows a part has that does little to each.
const someRows = 16

// embed puts the sum of the embeddings of word, position and type into x, normalised.
func (b *bert) embed(p *plan, x *buffer) {
	p.step((x.rows+someRows-1)/someRows, func(t *gemm.Thread, i int) {
		for r := i * someRows; r < min((i+1)*someRows, x.rows); r++ {
			row, place, w := x.row(r), r%b.length, b.width
			copy(row, b.words[b.token(r)*w:])
			t.Add(row, b.places[place*w:(place+1)*w])
			t.LayerNorm(row, b.types[:w], b.norm.gamma, b.norm.beta, bertEps)
		}
	})
}

// normalise adds y to x and normalises its rows.
func (p *plan) normalise(x, y *buffer, n layerNorm) {
	p.step((x.rows+someRows-1)/someRows, func(t *gemm.Thread, i int) {
		for r := i * someRows; r < min((i+1)*someRows, x.rows); r++ {
			t.LayerNorm(x.row(r), y.row(r), n.gamma, n.beta, bertEps)
		}
	})
}

// queriesMost is how many queries of a head are scored at once.
const queriesMost = 128

// attend sets each head's share of out to softmax(Q·Kᵀ/√d)·V. No item is padded, so nothing is masked.
func (b *bert) attend(p *plan, qkv, out *buffer) {
	k, threads, d, n := p.pool.threads[0].Kernel, len(p.pool.threads), b.width/b.heads, b.length
	keys, values := p.take(threads, k.Len(d, n)), p.take(threads, k.Len(n, d))
	scores := p.take(threads, queriesMost*stride(n))
	p.flops += 4 * float64(p.batch) * float64(b.heads) * float64(n) * float64(n) * float64(d)
	p.step(p.batch*b.heads, func(t *gemm.Thread, i int) {
		row, column := i/b.heads*n, i%b.heads*d
		q := qkv.data[row*qkv.stride+column:]
		kt, v := t.Matrix(keys.row(t.Index), d, n), t.Matrix(values.row(t.Index), n, d)
		kt.PackTransposed(q[b.width:], qkv.stride)
		v.Pack(q[2*b.width:], qkv.stride)
		s, apart := scores.row(t.Index), stride(n)
		for first := 0; first < n; first += queriesMost {
			some := min(queriesMost, n-first)
			t.Multiply(s, apart, q[first*qkv.stride:], qkv.stride, some, kt, nil, 0, kt.Panels())
			for r := range some {
				t.Softmax(s[r*apart:r*apart+n], float32(1/math.Sqrt(float64(d))))
			}
			t.Multiply(out.data[(row+first)*out.stride+column:], out.stride, s, apart, some, v, nil, 0, v.Panels())
		}
	})
	p.drop(keys)
	p.drop(values)
	p.drop(scores)
}
