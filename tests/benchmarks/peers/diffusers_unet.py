"""The U-Net of ``diffusers`` that is block for block that of guided diffusion, its weights out of ours, its DDIM."""

import torch
from diffusers import DDIMScheduler, UNet2DModel

from models.guided_diffusion.blocks import Attention, ResBlock
from models.guided_diffusion.network import UNet
from models.guided_diffusion.schedule import Schedule
from models.guided_diffusion.schema import Config

RESIDUAL = ("resnets", "downsamplers", "upsamplers")


def build_peer(config: Config, channels: int, classes: int) -> UNet2DModel:
    """A fresh one; attention acts at the smallest scale, as in the preset `cpu`."""
    widths = tuple(int(multiplier * config.width) for multiplier in config.multipliers)
    plain = len(widths) - 1
    assert config.attention == [config.image_size // 2**plain]
    return UNet2DModel(
        sample_size=config.image_size,
        in_channels=channels,
        out_channels=2 * channels,
        block_out_channels=widths,
        layers_per_block=config.depth,
        down_block_types=("ResnetDownsampleBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("ResnetUpsampleBlock2D",) * plain,
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=config.groups,
        attn_norm_num_groups=config.groups,
        attention_head_dim=config.head_channels,
        num_class_embeds=classes + 1,
    ).eval()


@torch.no_grad()
def copy_weights(ours: UNet, peer: UNet2DModel) -> None:
    """Give ``peer`` the weights of ``ours``; blocks are paired in the order in which they run."""
    stages = [*peer.down_blocks, peer.mid_block, *peer.up_blocks]
    resnets = [block for stage in stages for name in RESIDUAL for block in getattr(stage, name, None) or ()]
    attentions = [block for stage in stages for block in getattr(stage, "attentions", ())]
    conditioning = ours.conditioning
    sizes = [2 * width for width in conditioning.widths]
    rows = zip(conditioning.blocks.weight.split(sizes), conditioning.blocks.bias.split(sizes), strict=True)
    for block, found, (weight, bias) in zip(_of(ours, ResBlock), resnets, rows, strict=True):
        for name in ("norm1", "conv1", "norm2", "conv2"):
            getattr(found, name).load_state_dict(getattr(block, name).state_dict())
        if block.skip.state_dict():
            found.conv_shortcut.load_state_dict(block.skip.state_dict())
        found.time_emb_proj.load_state_dict({"weight": weight, "bias": bias})
    for block, found in zip(_of(ours, Attention), attentions, strict=True):
        found.group_norm.load_state_dict(block.norm.state_dict())
        parts = zip(block.qkv.weight.flatten(1).chunk(3), block.qkv.bias.chunk(3), strict=True)
        for linear, (weight, bias) in zip((found.to_q, found.to_k, found.to_v), parts, strict=True):
            linear.load_state_dict({"weight": weight, "bias": bias})
        found.to_out[0].load_state_dict({"weight": block.project.weight.flatten(1), "bias": block.project.bias})
    for layer, found in (
        (ours.trunk.input, peer.conv_in),
        (ours.norm, peer.conv_norm_out),
        (ours.output, peer.conv_out),
        (conditioning.mlp[0], peer.time_embedding.linear_1),
        (conditioning.mlp[2], peer.time_embedding.linear_2),
        (conditioning.label, peer.class_embedding),
    ):
        found.load_state_dict(layer.state_dict())


def scheduler(schedule: Schedule, spacing: str = "leading") -> DDIMScheduler:
    """DDIM on the same process, the estimate of the picture clipped and the noise derived from it again."""
    return DDIMScheduler(trained_betas=schedule.betas, clip_sample=True, timestep_spacing=spacing)


@torch.inference_mode()
def draw(peer: UNet2DModel, ddim: DDIMScheduler, x: torch.Tensor, labels: torch.Tensor, steps: int) -> torch.Tensor:
    """Samples from the noise ``x`` by diffusers' loop."""
    ddim.set_timesteps(steps)
    for t in ddim.timesteps:
        noise = peer(x, t, class_labels=labels).sample[:, : x.shape[1]]
        x = ddim.step(noise, t, x, use_clipped_model_output=True).prev_sample
    return x


def _of(network, kind):
    """Modules of ``kind`` in the order in which they run."""
    return [module for module in network.modules() if isinstance(module, kind)]
