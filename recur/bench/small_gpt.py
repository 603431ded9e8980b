"""A small GPT on characters, trained by nanoGPT's published recipe for a CPU: what a language model is compared with.

The sizes and the course are those of nanoGPT's README (github.com/karpathy/nanoGPT, "only have a macbook"): 4 layers,
4 heads, 128 wide, blocks of 64 characters, 12 of them a step, 2,000 steps, no dropout; AdamW (0.9, 0.99) with weight
decay 0.1, clipped at 1, 100 steps of warming up to 1e-3 and a cosine down to 1e-4. The network is that of Radford et
al. 2019 (GPT-2) without biases: pre-norm blocks, GELU, the head tied to the embedding.

B blocks, T characters of a block, W wide, V characters.
"""

from __future__ import annotations

import math
from typing import Any

LAYERS, HEADS, WIDE, BLOCK, BATCH, STEPS = 4, 4, 128, 64, 12, 2000
RATE, LEAST, WARM, DECAY, CLIP = 1e-3, 1e-4, 100, 0.1, 1.0


def make(torch: Any, vocabulary: int) -> Any:
    """The untrained network: tokens [B, T] in, scores [B, T, V] out; the caller imports `torch`."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(WIDE, bias=False), nn.LayerNorm(WIDE, bias=False)
            self.read, self.write = nn.Linear(WIDE, 3 * WIDE, bias=False), nn.Linear(WIDE, WIDE, bias=False)
            self.up, self.down = nn.Linear(WIDE, 4 * WIDE, bias=False), nn.Linear(4 * WIDE, WIDE, bias=False)

        def forward(self, x: Any) -> Any:
            blocks, time, _ = x.shape
            parts = self.read(self.before(x)).view(blocks, time, 3, HEADS, WIDE // HEADS).permute(2, 0, 3, 1, 4)
            seen = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
            x = x + self.write(seen.transpose(1, 2).reshape(blocks, time, WIDE))
            return x + self.down(nn.functional.gelu(self.up(self.between(x))))

    class SmallGpt(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(vocabulary, WIDE), nn.Embedding(BLOCK, WIDE)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.after = nn.LayerNorm(WIDE, bias=False)
            for name, parameter in self.named_parameters():
                if parameter.ndim > 1:
                    last = name.endswith(("write.weight", "down.weight"))
                    nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if last else 0.02)

        def forward(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x)
            return nn.functional.linear(self.after(x), self.tokens.weight)

    return SmallGpt()


def train(torch: Any, network: Any, text: Any, *, steps: int = STEPS) -> None:
    """The recipe on text [T] of ids, `steps` of it."""
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in network.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, steps)
        starts = torch.randint(len(text) - BLOCK, (BATCH,))
        piece = torch.stack([text[start : start + BLOCK + 1] for start in starts.tolist()])
        scores = network(piece[:, :-1])
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), piece[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()


def rate_at(step: int, steps: int) -> float:
    """The learning rate of the recipe at a step."""
    if step < WARM:
        return RATE * (step + 1) / (WARM + 1)
    share = (step - WARM) / max(1, steps - WARM)
    return LEAST + 0.5 * (1 + math.cos(math.pi * share)) * (RATE - LEAST)


def nats(torch: Any, network: Any, text: Any) -> float:
    """Mean nats a character over blocks of text [T] that lie end to end, as the recipe measures them."""
    count = (len(text) - 1) // BLOCK
    given = text[: count * BLOCK].view(count, BLOCK)
    follow = text[1 : count * BLOCK + 1].view(count, BLOCK)
    total = 0.0
    with torch.inference_mode():
        for at in range(0, count, 64):
            scores = network(given[at : at + 64])
            total += float(
                torch.nn.functional.cross_entropy(scores.flatten(0, 1), follow[at : at + 64].flatten(), reduction="sum")
            )
    return total / (count * BLOCK)
