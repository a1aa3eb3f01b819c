"""The models that are known by name, in torch.nn.

They have the shapes and exactly the parameters of the published checkpoints,
with random weights; the number of parameters is checked whenever one is made.
The forward pass is the whole of what the published model does in inference on a
batch of inputs: language models return logits for every position and generate
nothing, classifiers return logits, BERT its hidden states and pooled output.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .wire import Fatal

SDPA = hasattr(F, "scaled_dot_product_attention")  # since torch 2.0


class Model:
    """What is known of a model before it is made.

    build   makes the torch.nn module, on the CPU, in fp32
    shape   of one item, for people: a dict
    inputs  what to feed it: a list of (kind, shape without batch, bound), where
            kind is "tokens" (whole numbers below bound) or "normal"
    flops   operations an item takes, a multiplication and an addition counted as two
    """

    def __init__(self, build, shape, inputs, flops, attention=None):
        self.build, self.shape, self.inputs, self.flops, self.attention = build, shape, inputs, flops, attention


# Published numbers of parameters.
PARAMS = {
    "bert-base-uncased": 109482240,
    "bert-large-uncased": 335141888,
    "gpt2": 124439808,
    "mlp": 25076712,
    "resnet18": 11689512,
    "resnet50": 25557032,
    "t5-base": 222903552,
    "t5-small": 60506624,
    "vit-b16": 86567656,
    "whisper-tiny": 37760640,
}

ALIASES = {
    "bert": "bert-base-uncased",
    "bert-base": "bert-base-uncased",
    "google-bert/bert-base-uncased": "bert-base-uncased",
    "bert-large": "bert-large-uncased",
    "google-bert/bert-large-uncased": "bert-large-uncased",
    "openai-community/gpt2": "gpt2",
    "resnet-18": "resnet18",
    "microsoft/resnet-18": "resnet18",
    "resnet-50": "resnet50",
    "microsoft/resnet-50": "resnet50",
    "google-t5/t5-base": "t5-base",
    "google-t5/t5-small": "t5-small",
    "vit": "vit-b16",
    "vit-base-patch16-224": "vit-b16",
    "google/vit-base-patch16-224": "vit-b16",
    "openai/whisper-tiny": "whisper-tiny",
}


def known_name(name):
    """The name of a known model for its name or an alias, or None."""
    name = name.lower()
    return name if name in PARAMS else ALIASES.get(name)


def describe(name, length, image):
    """Describes a known model; a length or image size of 0 leaves it to the model."""
    return MAKERS[name](length, image)


def make(name, model):
    """Makes the module of a known model."""
    module = model.build()
    check_params(name, module)
    return module


def check_params(name, module):
    """Refuses a model that has not the parameters it should have."""
    have = count_params(module)
    if have != PARAMS[name]:
        raise Fatal("params", "%s has %d parameters here and %d as published: this is another model" % (name, have, PARAMS[name]))


def count_params(module):
    """The number of parameters; those used in several places count once."""
    return sum(p.numel() for p in module.parameters())


def length_of(name, asked, default, longest):
    """The sequence length to run at."""
    if asked > longest:
        raise Fatal("bad_spec", "sequence_length: %s takes at most %d tokens, not %d" % (name, longest, asked))
    return asked or default


def make_bert(name, d, layers, heads):
    def maker(length, _image):
        n = length_of(name, length, 128, 512)
        flops = layers * (block_flops(n, d, 4 * d) + attention_flops(n, n, d)) + 2 * d * d
        return Model(lambda: Bert(d, layers, heads), {"sequence_length": n}, [("tokens", (n,), 30522)], flops, attention_name())

    return maker


def make_gpt2(length, _image):
    n, d = length_of("gpt2", length, 128, 1024), 768
    flops = 12 * (block_flops(n, d, 4 * d) + attention_flops(n, n, d)) + 2 * n * d * 50257
    return Model(GPT2, {"sequence_length": n}, [("tokens", (n,), 50257)], flops, attention_name())


def make_t5(name, d, layers, heads):
    def maker(length, _image):
        n = length or 128
        encoder = layers * (block_flops(n, d, 4 * d) + attention_flops(n, n, d))
        decoder = layers * (block_flops(n, d, 4 * d) + 8 * n * d * d + 2 * attention_flops(n, n, d)) + 2 * n * d * 32128
        tokens = ("tokens", (n,), 32128)
        return Model(lambda: T5(d, layers, heads, n), {"sequence_length": n, "target_length": n}, [tokens, tokens], encoder + decoder, "eager")

    return maker


def make_vit(_length, image):
    if image not in (0, 224):
        raise Fatal("bad_spec", "image_size: vit-b16 takes images of 224 pixels, not %d" % image)
    n, d = 197, 768
    flops = 2 * 196 * 768 * d + 12 * (block_flops(n, d, 4 * d) + attention_flops(n, n, d)) + 2 * d * 1000
    return Model(ViT, {"image_size": 224, "channels": 3}, [("normal", (3, 224, 224), None)], flops, attention_name())


def make_whisper(length, _image):
    n, d, heard = length_of("whisper-tiny", length, 32, 448), 384, 1500
    encoder = 2 * 3000 * 80 * 3 * d + 2 * heard * d * 3 * d + 4 * (block_flops(heard, d, 4 * d) + attention_flops(heard, heard, d))
    cross = 4 * n * d * d + 4 * heard * d * d + attention_flops(n, heard, d)
    decoder = 4 * (block_flops(n, d, 4 * d) + attention_flops(n, n, d) + cross) + 2 * n * d * 51865
    inputs = [("normal", (80, 3000), None), ("tokens", (n,), 51865)]
    return Model(Whisper, {"mel_bins": 80, "frames": 3000, "target_length": n}, inputs, encoder + decoder, attention_name())


def make_resnet(block, depths):
    def maker(_length, image):
        size = image or 224
        if size < 32:
            raise Fatal("bad_spec", "image_size: a ResNet takes images of 32 pixels or more, not %d" % size)
        flops = resnet_flops(block, depths, size)
        return Model(lambda: ResNet(block, depths), {"image_size": size, "channels": 3}, [("normal", (3, size, size), None)], flops)

    return maker


def make_mlp(_length, _image):
    sizes = (1024, 4096, 4096, 1000)

    def build():
        layers = []
        for a, b in zip(sizes, sizes[1:]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return Model(build, {"features": 1024}, [("normal", (1024,), None)], sum(2 * a * b for a, b in zip(sizes, sizes[1:])))


def block_flops(n, d, ff):
    """Products with weights of a transformer layer: four projections and two of the feed-forward part."""
    return 2 * n * (4 * d * d + 2 * d * ff)


def attention_flops(n, m, d):
    """Scores and weighted sums of n positions that look at m."""
    return 4 * n * m * d


def resnet_flops(block, depths, size):
    """Products of the convolutions and the head of a ResNet; a stride of 2 halves a side, rounded up."""
    side = (size + 1) // 2
    total, side, a = 2 * 3 * 49 * 64 * side * side, (side + 1) // 2, 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for i in range(depth):
            out = (side + 1) // 2 if i == 0 and stage > 0 else side
            b = width * block.widening
            if block is Basic:
                weights = 9 * a * width + 9 * width * width
            else:
                weights = 9 * width * width + width * b
                total += 2 * a * width * side * side
            if out != side or a != b:
                weights += a * b
            total += 2 * weights * out * out
            side, a = out, b
    return total + 2 * a * 1000


def attention_name():
    return "sdpa" if SDPA else "eager"


def attend(q, k, v, mask=None, causal=False, scale=None):
    """Attention (Vaswani et al. 2017) of heads: the last two dimensions are positions and features."""
    if SDPA and scale is None and mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = torch.matmul(q, k.transpose(-1, -2)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        n = scores.shape[-1]
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1), float("-inf"))
    if mask is not None:
        scores = scores + mask
    return torch.matmul(F.softmax(scores, dim=-1), v)


def gelu_tanh(x):
    """GELU as GPT-2 approximates it (Hendrycks and Gimpel 2016)."""
    try:
        return F.gelu(x, approximate="tanh")
    except TypeError:  # before torch 1.12
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


class Attention(nn.Module):
    """Multi-head attention to itself or to another sequence."""

    def __init__(self, d, heads, inner=None, bias=True, key_bias=True, causal=False, scale=None):
        super().__init__()
        inner = inner or d
        self.heads, self.causal, self.scale = heads, causal, scale
        self.q = nn.Linear(d, inner, bias=bias)
        self.k = nn.Linear(d, inner, bias=bias and key_bias)
        self.v = nn.Linear(d, inner, bias=bias)
        self.o = nn.Linear(inner, d, bias=bias)

    def split(self, x):
        b, n, _ = x.shape
        return x.view(b, n, self.heads, -1).transpose(1, 2)

    def forward(self, x, other=None, mask=None):
        source = x if other is None else other
        y = attend(self.split(self.q(x)), self.split(self.k(source)), self.split(self.v(source)), mask, self.causal, self.scale)
        b, _, n, _ = y.shape
        return self.o(y.transpose(1, 2).reshape(b, n, -1))


class FeedForward(nn.Module):
    def __init__(self, d, inner, activation, bias=True):
        super().__init__()
        self.wide, self.narrow, self.activation = nn.Linear(d, inner, bias=bias), nn.Linear(inner, d, bias=bias), activation

    def forward(self, x):
        return self.narrow(self.activation(self.wide(x)))


class BertLayer(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.attention, self.feed = Attention(d, heads), FeedForward(d, 4 * d, F.gelu)
        self.norm1, self.norm2 = nn.LayerNorm(d, eps=1e-12), nn.LayerNorm(d, eps=1e-12)

    def forward(self, x):
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed(x))


class Bert(nn.Module):
    """BERT (Devlin et al. 2018), uncased, with its pooler."""

    def __init__(self, d, layers, heads):
        super().__init__()
        self.words, self.positions, self.types = nn.Embedding(30522, d), nn.Embedding(512, d), nn.Embedding(2, d)
        self.norm = nn.LayerNorm(d, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer(d, heads) for _ in range(layers))
        self.pooler = nn.Linear(d, d)
        small_normal(self)

    def forward(self, tokens):
        n = tokens.shape[1]
        x = self.norm(self.words(tokens) + self.positions.weight[:n] + self.types.weight[0])
        for layer in self.layers:
            x = layer(x)
        return x, torch.tanh(self.pooler(x[:, 0]))


class PreNormLayer(nn.Module):
    """A transformer layer that normalises before each part, as GPT-2, ViT and Whisper have it."""

    def __init__(self, d, heads, activation, causal=False, cross=False, key_bias=True, eps=1e-5):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(d, eps=eps), Attention(d, heads, causal=causal, key_bias=key_bias)
        self.norm2, self.feed = nn.LayerNorm(d, eps=eps), FeedForward(d, 4 * d, activation)
        if cross:
            self.norm3, self.cross = nn.LayerNorm(d, eps=eps), Attention(d, heads, key_bias=key_bias)

    def forward(self, x, other=None):
        x = x + self.attention(self.norm1(x))
        if other is not None:
            x = x + self.cross(self.norm3(x), other)
        return x + self.feed(self.norm2(x))


class GPT2(nn.Module):
    """GPT-2 (Radford et al. 2019), the smallest, with logits."""

    def __init__(self):
        super().__init__()
        d = 768
        self.words, self.positions = nn.Embedding(50257, d), nn.Embedding(1024, d)
        self.layers = nn.ModuleList(PreNormLayer(d, 12, gelu_tanh, causal=True) for _ in range(12))
        self.norm = nn.LayerNorm(d)
        small_normal(self)

    def forward(self, tokens):
        x = self.words(tokens) + self.positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.norm(x), self.words.weight)


class ViT(nn.Module):
    """ViT-B/16 (Dosovitskiy et al. 2020) for images of 224 pixels and 1000 classes."""

    def __init__(self):
        super().__init__()
        d = 768
        self.patches = nn.Conv2d(3, d, 16, stride=16)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, d)), nn.Parameter(torch.zeros(1, 197, d))
        self.layers = nn.ModuleList(PreNormLayer(d, 12, F.gelu, eps=1e-12) for _ in range(12))
        self.norm, self.head = nn.LayerNorm(d, eps=1e-12), nn.Linear(d, 1000)
        small_normal(self)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


class RMSNorm(nn.Module):
    """T5's layer norm, without mean and bias; computed in fp32."""

    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        variance = x.float().pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6)).to(self.weight.dtype)


class T5Layer(nn.Module):
    def __init__(self, d, heads, cross):
        super().__init__()
        self.norm1, self.attention = RMSNorm(d), Attention(d, heads, bias=False, scale=1.0)
        self.norm2, self.feed = RMSNorm(d), FeedForward(d, 4 * d, F.relu, bias=False)
        if cross:
            self.norm3, self.cross = RMSNorm(d), Attention(d, heads, bias=False, scale=1.0)

    def forward(self, x, bias, other=None):
        x = x + self.attention(self.norm1(x), mask=bias)
        if other is not None:
            x = x + self.cross(self.norm3(x), other)
        return x + self.feed(self.norm2(x))


class T5Stack(nn.Module):
    """Encoder or decoder, with relative positions that all its layers share."""

    def __init__(self, d, layers, heads, n, decoder):
        super().__init__()
        self.relative = nn.Embedding(32, heads)
        self.layers = nn.ModuleList(T5Layer(d, heads, decoder) for _ in range(layers))
        self.norm = RMSNorm(d)
        self.register_buffer("buckets", buckets(n, decoder), persistent=False)
        hidden = torch.zeros(n, n)
        if decoder:
            hidden = hidden.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), float("-inf"))
        self.register_buffer("hidden", hidden, persistent=False)

    def forward(self, x, other=None):
        bias = self.relative(self.buckets).permute(2, 0, 1) + self.hidden
        for layer in self.layers:
            x = layer(x, bias, other)
        return self.norm(x)


def buckets(n, decoder, count=32, farthest=128):
    """Which of 32 biases two positions have, by their distance (Raffel et al. 2019)."""
    distance = torch.arange(n)[None, :] - torch.arange(n)[:, None]
    base = torch.zeros_like(distance)
    if decoder:
        distance = (-distance).clamp(min=0)
    else:
        count //= 2
        base, distance = (distance > 0).long() * count, distance.abs()
    exact = count // 2
    far = exact + (torch.log(distance.clamp(min=1).float() / exact) / math.log(farthest / exact) * (count - exact)).long()
    return base + torch.where(distance < exact, distance, far.clamp(max=count - 1))


class T5(nn.Module):
    """T5 (Raffel et al. 2019), encoder and decoder, with logits."""

    def __init__(self, d, layers, heads, n):
        super().__init__()
        self.words = nn.Embedding(32128, d)
        self.encoder, self.decoder = T5Stack(d, layers, heads, n, False), T5Stack(d, layers, heads, n, True)
        small_normal(self)

    def forward(self, tokens, written):
        read = self.encoder(self.words(tokens))
        x = self.decoder(self.words(written), read)
        return F.linear(x * self.words.weight.shape[1] ** -0.5, self.words.weight)


class Whisper(nn.Module):
    """Whisper tiny (Radford et al. 2022): 30 s of sound, and what was written of it so far."""

    def __init__(self):
        super().__init__()
        d = 384
        self.conv1, self.conv2 = nn.Conv1d(80, d, 3, padding=1), nn.Conv1d(d, d, 3, stride=2, padding=1)
        self.heard = nn.Embedding(1500, d)
        self.encoder = nn.ModuleList(PreNormLayer(d, 6, F.gelu, key_bias=False) for _ in range(4))
        self.encoder_norm = nn.LayerNorm(d)
        self.words, self.positions = nn.Embedding(51865, d), nn.Embedding(448, d)
        self.decoder = nn.ModuleList(PreNormLayer(d, 6, F.gelu, causal=True, cross=True, key_bias=False) for _ in range(4))
        self.decoder_norm = nn.LayerNorm(d)
        small_normal(self)

    def forward(self, sound, written):
        x = F.gelu(self.conv2(F.gelu(self.conv1(sound)))).transpose(1, 2) + self.heard.weight
        for layer in self.encoder:
            x = layer(x)
        read = self.encoder_norm(x)
        x = self.words(written) + self.positions.weight[: written.shape[1]]
        for layer in self.decoder:
            x = layer(x, read)
        return F.linear(self.decoder_norm(x), self.words.weight)


def convolution(a, b, size, stride=1):
    return nn.Sequential(nn.Conv2d(a, b, size, stride=stride, padding=size // 2, bias=False), nn.BatchNorm2d(b))


class Basic(nn.Module):
    """The block of ResNet-18."""

    widening = 1

    def __init__(self, a, width, stride):
        super().__init__()
        self.one, self.two = convolution(a, width, 3, stride), convolution(width, width, 3)
        self.side = convolution(a, width, 1, stride) if stride != 1 or a != width else nn.Identity()

    def forward(self, x):
        return F.relu(self.side(x) + self.two(F.relu(self.one(x))))


class Bottleneck(nn.Module):
    """The block of ResNet-50, with the stride in its middle (v1.5)."""

    widening = 4

    def __init__(self, a, width, stride):
        super().__init__()
        b = 4 * width
        self.one, self.two, self.three = convolution(a, width, 1), convolution(width, width, 3, stride), convolution(width, b, 1)
        self.side = convolution(a, b, 1, stride) if stride != 1 or a != b else nn.Identity()

    def forward(self, x):
        return F.relu(self.side(x) + self.three(F.relu(self.two(F.relu(self.one(x))))))


class ResNet(nn.Module):
    """ResNet (He et al. 2015) with 1000 classes."""

    def __init__(self, block, depths):
        super().__init__()
        self.stem = convolution(3, 64, 7, 2)
        blocks, a = [], 64
        for stage, depth in enumerate(depths):
            for i in range(depth):
                blocks.append(block(a, 64 << stage, 2 if i == 0 and stage > 0 else 1))
                a = (64 << stage) * block.widening
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(a, 1000)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x)), 3, stride=2, padding=1)
        return self.head(self.blocks(x).mean((2, 3)))


def small_normal(module):
    """The weights of a transformer before training: normal, with a deviation of 0.02."""
    with torch.no_grad():
        for m in module.modules():
            if isinstance(m, (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d)):
                m.weight.normal_(0, 0.02)
                if getattr(m, "bias", None) is not None:
                    m.bias.zero_()


MAKERS = {
    "bert-base-uncased": make_bert("bert-base-uncased", 768, 12, 12),
    "bert-large-uncased": make_bert("bert-large-uncased", 1024, 24, 16),
    "gpt2": make_gpt2,
    "mlp": make_mlp,
    "resnet18": make_resnet(Basic, (2, 2, 2, 2)),
    "resnet50": make_resnet(Bottleneck, (3, 4, 6, 3)),
    "t5-base": make_t5("t5-base", 768, 12, 12),
    "t5-small": make_t5("t5-small", 512, 6, 8),
    "vit-b16": make_vit,
    "whisper-tiny": make_whisper,
}
