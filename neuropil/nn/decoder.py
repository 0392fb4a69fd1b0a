"""A small decoder: the transformer language model, for experiments that a laptop can do.

Vaswani et al.: Attention Is All You Need. NeurIPS 2017. arXiv:1706.03762. Rotary positions: Su et al.,
arXiv:2104.09864. RMSNorm: Zhang and Sennrich, arXiv:1910.07467. SwiGLU: Shazeer, arXiv:2002.05202.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, DataError, ShapeError, nearest

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

Activation = Literal["swiglu", "geglu", "reglu", "gelu", "relu", "silu"]
Norm = Literal["rms", "layer"]
Positions = Literal["rotary", "learned", "none"]

_GATED = {"swiglu": nn.SiLU, "geglu": nn.GELU, "reglu": nn.ReLU}
_PLAIN = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}
_NORMS: dict[str, type[nn.Module]] = {"rms": nn.RMSNorm, "layer": nn.LayerNorm}
_POSITIONS = ("rotary", "learned", "none")


class CausalAttention(nn.Module):
    """Multi-head attention in which a token sees itself and what came before it.

    The output of `pattern` is the attention pattern, `[batch, head, token, token]`: hook it to see or change it.
    Input and output are `[batch, token, width]`.

    Raises ConfigError when heads do not divide the width, or rotary positions have an odd head width.

    >>> CausalAttention(32, heads=4)(torch.randn(2, 7, 32)).shape
    torch.Size([2, 7, 32])
    """

    def __init__(self, width: int, heads: int, *, rotary: bool = True) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ConfigError(f"CausalAttention: width {width} cannot be divided among {heads} heads")
        if rotary and (width // heads) % 2:
            raise ConfigError(f"CausalAttention: rotary positions need an even head, got {width // heads}")
        self.heads, self.rotary = heads, rotary
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.pattern = nn.Softmax(-1)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Mix every token with those before it."""
        batch, tokens, width = x.shape
        query, key, value = (
            part(x).reshape(batch, tokens, self.heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        if self.rotary:
            query, key = rotate(query), rotate(key)
        scores = query @ key.mT * (width // self.heads) ** -0.5
        later = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).triu(1)
        mixed = self.pattern(scores.masked_fill(later, -torch.inf)) @ value
        output: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return output


class FeedForward(nn.Module):
    """What every token goes through alone: `down(act(up(x)))`, or gated `down(act(gate(x)) * up(x))`.

    The input of `down` are the keys of the layer, `[batch, token, hidden]`.

    >>> FeedForward(32, 64, "swiglu")(torch.randn(2, 7, 32)).shape
    torch.Size([2, 7, 32])
    """

    def __init__(self, width: int, hidden: int, activation: Activation = "swiglu") -> None:
        super().__init__()
        known = {**_GATED, **_PLAIN}
        if activation not in known:
            raise ConfigError(f"FeedForward: no activation {activation!r}{nearest(activation, known)}")
        self.gate = nn.Linear(width, hidden, bias=False) if activation in _GATED else None
        self.up = nn.Linear(width, hidden, bias=False)
        self.activation = known[activation]()
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Transform every token."""
        up = self.up(x)
        key = self.activation(up) if self.gate is None else self.activation(self.gate(x)) * up
        output: Tensor = self.down(key)
        return output


class DecoderBlock(nn.Module):
    """Attention and feed-forward, each added to the residual stream `[batch, token, width]`.

    >>> DecoderBlock(32, heads=4, hidden=64)(torch.randn(2, 7, 32)).shape
    torch.Size([2, 7, 32])
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, activation: Activation = "swiglu", norm: Norm = "rms",
        rotary: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if norm not in _NORMS:
            raise ConfigError(f"DecoderBlock: no norm {norm!r}{nearest(norm, _NORMS)}")
        self.attention_norm = _NORMS[norm](width)
        self.attention = CausalAttention(width, heads, rotary=rotary)
        self.feedforward_norm = _NORMS[norm](width)
        self.feedforward = FeedForward(width, hidden, activation)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Add what attention and feed-forward have to say."""
        x = x + self.attention(self.attention_norm(x))
        output: Tensor = x + self.feedforward(self.feedforward_norm(x))
        return output


class Decoder(nn.Module):
    """A decoder-only transformer: tokens `[batch, token]` to logits of the next one `[batch, token, vocabulary]`.

    Pre-norm blocks without biases; the defaults are those of today's models (RMSNorm, SwiGLU, rotary positions), the
    others of earlier ones. Weights follow torch's random state; those that write to the residual stream are scaled
    down by the square root of twice the layers.

    Args:
        vocabulary: number of tokens; 256 for bytes.
        width: of the residual stream.
        layers: number of blocks.
        heads: attention heads of a block; they divide the width.
        hidden: width of the feed-forward layers; default: 4 times the width, gated 8/3 times (rounded up to 8).
        activation: swiglu, geglu, reglu (gated), gelu, relu or silu.
        norm: rms or layer.
        positions: rotary, learned (then `context` is the longest input) or none.
        context: longest input.
        tied: the head is the transposed embedding.

    Raises:
        ConfigError: sizes below 1, heads that do not divide the width, an unknown part.
        ShapeError: an input that is not `[batch, token]` or longer than `context`.
        DataError: a token outside the vocabulary.

    >>> model = Decoder(vocabulary=256, width=32, layers=2, heads=4)
    >>> model(torch.tensor([list(b"hello")])).shape
    torch.Size([1, 5, 256])
    """

    def __init__(
        self, vocabulary: int = 256, width: int = 128, layers: int = 2, heads: int = 4, hidden: int | None = None, *,
        activation: Activation = "swiglu", norm: Norm = "rms", positions: Positions = "rotary", context: int = 1024,
        tied: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        sizes = {"vocabulary": vocabulary, "width": width, "layers": layers, "context": context}
        for name, size in sizes.items():
            if size < 1:
                raise ConfigError(f"Decoder: {name} is {size}, expected at least 1")
        if positions not in _POSITIONS:
            raise ConfigError(f"Decoder: no positions {positions!r}{nearest(positions, _POSITIONS)}")
        if hidden is None:
            hidden = -(-width // 3) * 8 if activation in _GATED else 4 * width
        self.context = context
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width) if positions == "learned" else None
        self.blocks = nn.ModuleList(
            DecoderBlock(width, heads, hidden, activation=activation, norm=norm, rotary=positions == "rotary")
            for _ in range(layers)
        )
        self.norm = _NORMS[norm](width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                writes = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * layers) ** 0.5 if writes else 0.02)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Int64[Tensor, "batch token"]) -> Float[Tensor, "batch token vocabulary"]:
        """Logits of each token's successor."""
        self._check(tokens)
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def _check(self, tokens: Tensor) -> None:
        if tokens.dim() != 2 or tokens.is_floating_point():
            kind = f"{tokens.dtype} {list(tokens.shape)}".removeprefix("torch.")
            raise ShapeError(f"Decoder: got {kind}, expected whole numbers [batch, token]")
        if tokens.shape[1] > self.context:
            raise ShapeError(f"Decoder: {tokens.shape[1]} tokens are more than its context of {self.context}")
        if torch.compiler.is_compiling() or not tokens.numel():
            return
        lowest, highest = (int(value) for value in tokens.aminmax())
        if lowest < 0 or highest >= self.embedding.num_embeddings:
            wrong = lowest if lowest < 0 else highest
            raise DataError(
                f"Decoder: token {wrong} is outside the vocabulary, 0 to {self.embedding.num_embeddings - 1}"
            )


def rotate(x: Float[Tensor, "*batch token features"]) -> Float[Tensor, "*batch token features"]:
    """Rotary positions: turn pairs of features `(i, i + half)` by an angle that grows with the token's place.

    The product of a query and a key then depends on their distance only.

    >>> x = torch.randn(3, 8)
    >>> torch.allclose(rotate(x)[0], x[0])
    True
    """
    tokens, half = x.shape[-2], x.shape[-1] // 2
    speed = 10_000.0 ** (-torch.arange(half, dtype=x.dtype, device=x.device) / half)
    angle = torch.arange(tokens, dtype=x.dtype, device=x.device)[:, None] * speed
    first, second = x[..., :half], x[..., half:]
    return torch.cat(
        (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()), -1
    )


@torch.no_grad()
def generate(
    model: nn.Module, tokens: Int64[Tensor, "batch token"], length: int, *, temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Int64[Tensor, "batch longer"]:  # fmt: skip
    """`tokens` with `length` more, each drawn from the model's answer; temperature 0 takes the likeliest.

    Raises ConfigError for a negative length or temperature.

    >>> generate(Decoder(16, 8, 1, 2), torch.tensor([[1, 2]]), 3, temperature=0).shape
    torch.Size([1, 5])
    """
    if length < 0 or not temperature >= 0:
        raise ConfigError(f"generate: got length {length} and temperature {temperature}, expected both >= 0")
    for _ in range(length):
        logits = model(tokens)[:, -1]
        if temperature == 0:
            chosen = logits.argmax(-1, keepdim=True)
        else:
            chosen = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        tokens = torch.cat((tokens, chosen), 1)
    return tokens
