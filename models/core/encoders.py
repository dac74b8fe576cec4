"""Small convolutional encoders of pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDES = (2, 1, 2, 1, 2)


class ConvEncoder(nn.Module):
    """Five 3x3 convolutions (strides 2, 1, 2, 1, 2; batch norm, ReLU) and global average pooling.

    Args:
        channels: of the input pictures, 1 or 3.
        width: channels of the first convolution; the widths are ``width * (1, 2, 2, 4, 4)``.

    Attributes:
        features: length of the output vector, ``4 * width``.
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = channels
        for factor, stride in zip((1, 2, 2, 4, 4), STRIDES, strict=True):
            outside = width * factor
            layers += [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
            inside = outside
        self.layers = nn.Sequential(*layers)
        self.features = inside

    def forward(self, images: Tensor) -> Tensor:
        """Float32 ``(B, C, H, W)`` to features ``(B, features)``, none negative."""
        pooled: Tensor = self.layers(images).mean(dim=(2, 3))
        return pooled


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Merge each batch norm into the convolution before it, in place, for faster prediction.

    Only inside :class:`torch.nn.Sequential`, where the order of the layers is known; ``module`` must be in
    evaluation mode.
    """
    for child in module.modules():
        if not isinstance(child, nn.Sequential):
            continue
        for position in range(len(child) - 1):
            convolution, norm = child[position], child[position + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                child[position] = fuse_conv_bn_eval(convolution, norm)
                child[position + 1] = nn.Identity()
    return module


@torch.inference_mode()
def encode(module: nn.Module, images: Tensor, *, device: torch.device | str, batch_size: int = 512) -> Tensor:
    """Outputs of ``module`` in evaluation mode for many pictures, on the CPU.

    Args:
        images: uint8 or float32 in [0, 1], ``(N, C, H, W)``; bytes are divided by 255. Anything of fewer axes (the
            tokens of texts) goes into ``module`` as it is.
    """
    was_training = module.training
    module.eval()
    outputs = []
    for batch in torch.split(images, batch_size):
        inputs = batch.to(device)
        if inputs.ndim == 4:
            inputs = inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        outputs.append(module(inputs).float())
    module.train(was_training)
    return torch.cat(outputs).cpu()
