"""A tiny pipeline as one file in the key layout of the original code: the inverse of diffusers' conversion."""

import torch

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0",
    "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip
ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm"}


def unet(model):
    """model.diffusion_model.*"""
    layers, blocks = model.config.layers_per_block, len(model.config.block_out_channels)
    places = dict(ENDS)
    for i in range(blocks):
        for j in range(layers):
            place = f"input_blocks.{1 + i * (layers + 1) + j}"
            places |= {f"down_blocks.{i}.resnets.{j}": f"{place}.0", f"down_blocks.{i}.attentions.{j}": f"{place}.1"}
        places[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{(i + 1) * (layers + 1)}.0.op"
        attends = bool(getattr(model.up_blocks[i], "attentions", None))
        for j in range(layers + 1):
            place = f"output_blocks.{i * (layers + 1) + j}"
            places |= {f"up_blocks.{i}.resnets.{j}": f"{place}.0", f"up_blocks.{i}.attentions.{j}": f"{place}.1"}
        places[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{i * (layers + 1) + layers}.{1 + attends}.conv"
    return {f"model.diffusion_model.{_renamed(name, places, RESNET)}": at for name, at in model.state_dict().items()}


def vae(model):
    """first_stage_model.*"""
    blocks, places = len(model.config.block_out_channels), {}
    for side, kind in (("encoder", "down"), ("decoder", "up")):
        places[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        places |= {f"{side}.mid_block.resnets.{j}": f"{side}.mid.block_{j + 1}" for j in (0, 1)}
        places[f"{side}.mid_block.attentions.0"] = f"{side}.mid.attn_1"
        for i in range(blocks):
            to = i if kind == "down" else blocks - 1 - i
            for j in range(3):
                places[f"{side}.{kind}_blocks.{i}.resnets.{j}"] = f"{side}.{kind}.{to}.block.{j}"
            sampler = f"{side}.{kind}_blocks.{i}.{kind}samplers.0"
            places[sampler] = f"{side}.{kind}.{to}.{kind}sample"
    held = {}
    for name, tensor in model.state_dict().items():
        inside = ATTENTION if ".attentions." in name else {"conv_shortcut": "nin_shortcut"}
        linear = ".attentions." in name and tensor.ndim == 2
        renamed = _renamed(name, places, inside)
        held[f"first_stage_model.{renamed}"] = tensor[:, :, None, None] if linear else tensor
    return held


def text(model):
    """cond_stage_model.transformer.text_model.*"""
    names = {name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}
    return {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in names.items()}


def stable_diffusion(pipeline):
    """Of a whole Stable Diffusion v1."""
    held = unet(pipeline.unet) | vae(pipeline.vae) | text(pipeline.text_encoder)
    return {name: tensor.contiguous().clone() for name, tensor in held.items()} | {"alphas_cumprod": torch.ones(1000)}


def _renamed(name, places, inside):
    """The longest place that it begins with, then what is inside."""
    place = max((at for at in places if name.startswith(f"{at}.")), key=len, default=None)
    if place is None:
        return name
    rest = name.removeprefix(f"{place}.")
    part = next((at for at in inside if rest.startswith(f"{at}.")), None)
    return f"{places[place]}.{rest if part is None else inside[part] + rest.removeprefix(part)}"
