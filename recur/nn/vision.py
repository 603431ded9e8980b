"""The trunk: a small convolutional network that turns a picture into a grid of features.

Plain 3x3 convolutions with residual connections (He et al. 2016), because one dense 3x3 convolution keeps a CPU's
matrix units busy where a depthwise one waits for memory; the first layer looks at 4x4 patches through
space-to-depth, so that no layer works on the full-size picture; squeeze-and-excitation (Hu et al. 2018) in the
late stages lets every cell know about the whole picture for almost nothing.

B pictures, Y and X pixels, F output channels, gy = Y / 32 and gx = X / 32 grid cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

PATCH = 4
PIXEL_MEAN = 118.0
PIXEL_SCALE = 64.0


M = TypeVar("M", bound=nn.Module)


def channels_last(module: M) -> M:
    """The same module with its convolutions laid out as a CPU likes them."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


class Squeeze(nn.Module):
    """Channel gates computed from the mean over the whole map (Hu et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, width // 8, 1)
        self.up = nn.Conv2d(width // 8, width, 1)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, Y, X] -> [B, C, 1, 1]
        return torch.sigmoid(self.up(functional.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Block(nn.Module):
    """Two 3x3 convolutions and a residual connection; the gate scales the new part only."""

    def __init__(self, width: int, *, squeeze: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.squeeze = Squeeze(width) if squeeze else None

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.squeeze is not None:
            y = y * self.squeeze(y)
        return functional.relu(x + y)


class Shrink(nn.Module):
    """A 3x3 convolution, by default of stride 2: half the side, more channels."""

    def __init__(self, before: int, after: int, stride: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)))


class Trunk(nn.Module):
    """Pixels [B, 3, Y, X], RGB 0..255, to features [B, F, Y/32, X/32], all >= 0. Y and X are multiples of 32."""

    def __init__(self, widths: Sequence[int] = (32, 96, 192, 384), depths: Sequence[int] = (1, 1, 3, 1)) -> None:
        super().__init__()
        self.widths, self.depths = tuple(widths), tuple(depths)
        self.stem = Shrink(3 * PATCH * PATCH, widths[0], stride=1)
        layers: list[nn.Module] = []
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if stage:
                layers.append(Shrink(widths[stage - 1], width))
            layers += [Block(width, squeeze=stage >= 2) for _ in range(depth)]
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, Block):
                # A block starts as the identity, so that depth costs nothing at first (Goyal et al. 2017).
                nn.init.zeros_(module.norm2.weight)

    def fold(self) -> Trunk:
        """The same function with each batch normalisation merged into the convolution before it (a bias each).

        This is the form that is shipped, and the one that fine-tuning starts from: with small batches the running
        averages would stay frozen anyway, and a folded network is faster.
        """
        folded = Trunk(self.widths, self.depths)
        folded.load_state_dict(self.state_dict())
        folded.eval()
        for module in list(folded.modules()):
            for conv, norm in (("conv", "norm"), ("conv1", "norm1"), ("conv2", "norm2")):
                if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                    setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                    setattr(module, norm, nn.Identity())
        return channels_last(folded)

    @torch.no_grad()
    def unfold(self, pixels: Tensor) -> Trunk:
        """The reverse of `fold`: the same function with a batch normalisation after each convolution, for training on.

        Their statistics are those of `pixels` [B, 3, Y, X]; each filter has length 1, and what it lost is in the
        normalisation.
        """
        found = Trunk(self.widths, self.depths)
        seen: dict[str, Tensor] = {}
        hooks = [
            module.register_forward_hook(lambda _module, _inputs, out, name=name: seen.update({name: out.float()}))
            for name, module in self.named_modules()
            if name.rpartition(".")[2] in ("conv", "conv1", "conv2")
        ]
        self(pixels)
        for hook in hooks:
            hook.remove()
        state = found.state_dict()
        for name, value in self.state_dict().items():
            if name.rpartition(".")[0] not in seen:
                state[name] = value  # of the gates
        for name, out in seen.items():
            conv = self.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            length = conv.weight.flatten(1).norm(dim=1).clamp_min(1e-12)
            mean = (out.mean((0, 2, 3)) - conv.bias) / length
            var = out.var((0, 2, 3)) / length.square()
            norm = name.replace("conv", "norm")
            state[f"{name}.weight"] = conv.weight / length[:, None, None, None]
            state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = mean, var
            state[f"{norm}.weight"] = length * (var + nn.BatchNorm2d(1).eps).sqrt()
            state[f"{norm}.bias"] = conv.bias + length * mean
        found.load_state_dict(state)
        return channels_last(found)

    @property
    def channels(self) -> int:
        return self.widths[-1]

    def start(self, pixels: Tensor) -> Tensor:
        """What the first of `layers` reads: the stem's map of stride 4."""
        x = functional.pixel_unshuffle((pixels.float() - PIXEL_MEAN) / PIXEL_SCALE, PATCH)
        out: Tensor = self.stem(x.contiguous(memory_format=torch.channels_last))
        return out

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.layers(self.start(pixels))
        return out


class DistillationHead(nn.Module):
    """Guesses the teacher's map [B, T, gy, gx] and class probabilities from the trunk's features.

    It exists for training only: it is the head that comes off.
    """

    def __init__(self, channels: int, teacher_channels: int, classes: int) -> None:
        super().__init__()
        self.map = nn.Conv2d(channels, teacher_channels, 1)
        self.classify = nn.Linear(teacher_channels, classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        guess = self.map(features)
        return guess, self.classify(guess.mean((2, 3)))
