"""A small CLIP: text and image tower, trained contrastively on the pool, then frozen; and its tokenizer.

The image tower has a second head that learns to find a picture again after small changes (as SSCD does): the second,
independent similarity of the labels.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .fit import Loss
from .grounds import IMAGE_SIZE
from .precision import autocast, ready

LEARNED_TOKENS, MAX_LENGTH, HIDDEN = 4096, 24, 128
STEPS, BATCH, LR = 1500, 96, 1e-3
COPY_WEIGHT = 0.5
TEMPERATURE = 0.07


def train_tokenizer(texts: list[str], folder: Path) -> CLIPTokenizer:
    """CLIP's form of byte-pair tokenizer: every byte, alone and at a word's end, and merges learnt from `texts`."""
    if not (folder / "merges.txt").exists():
        special = ["<|startoftext|>", "<|endoftext|>"]
        clip = CLIPTokenizer().backend_tokenizer  # only for its normalizer and pre-tokenizer
        learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
        learner.normalizer, learner.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
        alphabet = sorted(pre_alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=LEARNED_TOKENS, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
        )
        learner.train_from_iterator(texts, trainer)
        learned = json.loads(learner.to_str())["model"]
        vocabulary = dict.fromkeys([*alphabet, *(byte + "</w>" for byte in alphabet), *learned["vocab"], *special])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, learned["merges"])]) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_LENGTH, pad_token="<|endoftext|>")


def pre_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel.alphabet()


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids int64 [n, MAX_LENGTH], padded and truncated as the diffusers pipeline does it."""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt").input_ids


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=512, projection_dim=HIDDEN,
            num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=MAX_LENGTH,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    nn.init.normal_(encoder.get_input_embeddings().weight, std=0.1)
    return encoder


class Block(nn.Module):
    """A residual block that may halve the picture."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, before)
        self.first, self.second = nn.Conv2d(before, after, 3, stride, 1), nn.Conv2d(after, after, 3, 1, 1)
        self.skip = nn.Conv2d(before, after, stride, stride)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.skip(x) + self.second(F.silu(self.first(F.silu(self.norm(x)))))


class ImageTower(nn.Module):
    """Pictures float32 [n, 3, h, w] in [-1, 1] to two unit vectors: one beside the caption's, one to find copies."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 48, 4, 4),
            Block(48, 48, 1),
            Block(48, 96, 2),
            Block(96, 160, 2),
            nn.GroupNorm(8, 160),
            nn.SiLU(),
        )
        self.caption_head, self.copy_head = nn.Linear(160, HIDDEN), nn.Linear(160 * 16, HIDDEN)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if images.shape[-1] != IMAGE_SIZE:
            images = F.interpolate(images, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
        features = self.body(images.contiguous(memory_format=torch.channels_last))  # [n, 160, 4, 4]
        caption = self.caption_head(features.mean((2, 3)))
        return F.normalize(caption.float(), dim=1), F.normalize(self.copy_head(features.flatten(1)).float(), dim=1)


class Towers(nn.Module):
    """Text encoder, the text's projection, and image tower."""

    def __init__(self, tokenizer: CLIPTokenizer):
        super().__init__()
        self.text, self.project, self.image = new_text_encoder(tokenizer), nn.Linear(HIDDEN, HIDDEN), ImageTower()
        self.scale = nn.Parameter(torch.tensor(np.log(1 / TEMPERATURE)).float())
        ready(self.image)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Unit vectors [n, HIDDEN] of token ids [n, L]."""
        return F.normalize(self.project(self.text(tokens).pooler_output).float(), dim=1)


def changed(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures [n, 3, 64, 64] in [-1, 1], a little cropped, brighter or darker, blurred, noisy: still copies."""
    n = len(images)
    zoom = 1 - 0.12 * torch.rand(n, generator=generator)
    shift = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - zoom)[:, None]
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = zoom
    affine[:, :, 2] = shift
    images = F.grid_sample(images, F.affine_grid(affine, list(images.shape), align_corners=False), align_corners=False)
    blurred = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    soft = (torch.rand(n, generator=generator) < 0.5)[:, None, None, None]
    images = torch.where(soft, blurred, images)
    gain = 1 + 0.3 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    bias = 0.2 * (torch.rand(n, 3, 1, 1, generator=generator) - 0.5)
    return (images * gain + bias + 0.04 * torch.randn(images.shape, generator=generator)).clamp(-1, 1)


def contrast(first: torch.Tensor, second: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
    """InfoNCE both ways of unit vectors [n, d] that belong together row by row."""
    logits, same = scale * first @ second.T, torch.arange(len(first))
    return (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2


def towers_loss(towers: Towers, images: np.ndarray, tokens: torch.Tensor) -> Loss:
    """Captions beside their pictures, and half of the pictures beside their changed selves."""

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(0, len(images), (BATCH,), generator=generator)
        view = torch.from_numpy(images[chosen]).float() / 127.5 - 1
        half = BATCH // 2
        with autocast():
            captions, copies = towers.image(torch.cat([view, changed(view[:half], generator)]))
            texts = towers.embed(tokens[chosen])
        captions, copies, texts = captions.float(), copies.float(), texts.float()
        scale = towers.scale.clamp(max=np.log(100)).exp()
        together = contrast(captions[:BATCH], texts, scale)
        return together + COPY_WEIGHT * contrast(copies[:half], copies[BATCH:], 1 / TEMPERATURE)

    return loss
