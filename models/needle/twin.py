"""The decoder whose twins differ in what their queries are multiplied with: RMSNorm, rotary positions, SwiGLU.

It computes what Hugging Face's Phi-3 and SmolLM3 do, with one change: under SSMax (Nakanishi 2025, arXiv 2501.19399) the
query at position i is multiplied by s ln(i + 1) + b, s and b per layer and head, after the rotary embedding.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

ROPE_THETA = 10000.0
NORM_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Shape:
    vocabulary: int
    layers: int = 2
    heads: int = 2
    hidden: int = 64
    ffn: int = 64
    # Rotated dimensions of each layer's heads, the ones of the highest frequencies first (p-RoPE); 0: no positions.
    rotary: tuple[int, ...] = (8, 8)

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


class Attention(nn.Module):
    def __init__(self, shape: Shape, rotary: int):
        super().__init__()
        self.shape, self.rotary = shape, rotary
        self.qkv = nn.Linear(shape.hidden, 3 * shape.hidden, bias=False)
        self.out = nn.Linear(shape.hidden, shape.hidden, bias=False)
        # None: softmax. Parameters of SSMax otherwise.
        self.s: nn.Parameter | None = None
        self.b: nn.Parameter | None = None

    def heads(self, x: torch.Tensor) -> torch.Tensor:  # [B, T, hidden] -> [B, heads, T, head_dim]
        return x.unflatten(-1, (self.shape.heads, self.shape.head_dim)).transpose(1, 2)

    def rotate(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        if self.rotary == 0:
            return x
        half = self.rotary // 2
        rates = ROPE_THETA ** (-2.0 / self.shape.head_dim * torch.arange(half, device=x.device))
        angles = positions[:, None] * rates  # [T, half]
        cos, sin = angles.cos(), angles.sin()
        a, b, rest = x.split((half, half, self.shape.head_dim - self.rotary), -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), -1)

    def forward(self, x: torch.Tensor, tail: int) -> torch.Tensor:
        """Attention of the last `tail` positions to all up to them: [B, T, hidden] -> [B, tail, hidden]."""
        length = x.shape[1]
        positions = torch.arange(length, device=x.device)
        q_weight, kv_weight = self.qkv.weight.split((self.shape.hidden, 2 * self.shape.hidden))
        k, v = F.linear(x, kv_weight).chunk(2, -1)
        rows = positions[length - tail :]
        q = self.rotate(self.heads(F.linear(x[:, length - tail :], q_weight)), rows)
        k = self.rotate(self.heads(k), positions)
        if self.s is not None:
            factor = self.s[:, None] * (rows + 1.0).log()  # [heads, tail]
            q = q * (factor if self.b is None else factor + self.b[:, None])[..., None]
        if tail == length:
            mixed = F.scaled_dot_product_attention(q, k, self.heads(v), is_causal=True)
        else:
            mixed = F.scaled_dot_product_attention(q, k, self.heads(v), attn_mask=rows[:, None] >= positions)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, shape: Shape, rotary: int):
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.hidden, eps=NORM_EPSILON)
        self.attention = Attention(shape, rotary)
        self.ffn_norm = nn.RMSNorm(shape.hidden, eps=NORM_EPSILON)
        self.gate_up = nn.Linear(shape.hidden, 2 * shape.ffn, bias=False)
        self.down = nn.Linear(shape.ffn, shape.hidden, bias=False)

    def forward(self, x: torch.Tensor, tail: int) -> torch.Tensor:
        y = x[:, x.shape[1] - tail :] + self.attention(self.attention_norm(x), tail)
        gate, up = self.gate_up(self.ffn_norm(y)).chunk(2, -1)
        return y + self.down(F.silu(gate) * up)


class Twin(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape, rotary) for rotary in shape.rotary)
        self.norm = nn.RMSNorm(shape.hidden, eps=NORM_EPSILON)
        self.head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        for weight in self.parameters():
            if weight.dim() == 2:  # what a row takes in has unit variance, and so has what it gives out
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        nn.init.normal_(self.embedding.weight)

    def use_ssmax(self, s: float, bias: bool = False, learned: bool = True) -> None:
        """From here on SSMax, from one s for all heads."""
        for layer in self.layers:
            device = layer.attention.qkv.weight.device
            heads = self.shape.heads
            layer.attention.s = nn.Parameter(torch.full((heads,), s, device=device), requires_grad=learned)
            if bias:
                layer.attention.b = nn.Parameter(torch.zeros(heads, device=device))

    def forward(self, tokens: torch.Tensor, tail: int | None = None) -> torch.Tensor:
        """Logits of the last `tail` positions (default: all): [B, T] -> [B, tail, vocabulary]."""
        length = tokens.shape[1]
        tail = length if tail is None else tail
        x = self.embedding(tokens)
        for i, layer in enumerate(self.layers):
            # Nothing but keys and values of earlier positions is wanted from the last layer.
            x = layer(x, tail if i == self.shape.layers - 1 else length)
        return self.head(self.norm(x))
