"""Textual inversions (Gal et al., 2023): words with vectors of their own, put into tokenizers and text encoders.

A word of several vectors is several tokens, which follow one another wherever it is written, as diffusers has it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import load_single_file_checkpoint
from tokenizers import Tokenizer, normalizers
from torch import Tensor

from engines.interface import EngineError
from engines.parts import Parts

TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}  # by the names in a file for two
UNNAMED = ("emb_params", "*")  # what trainers call the vectors where the file's name is the word
PLACES = [chr(0xFDD0 + i) for i in range(32)]  # code points that are no characters


@dataclass(frozen=True)
class Embedding:
    """A file, and the word that stands for its vectors; None: the one in the file, else the file's name."""

    file: Path
    word: str | None = None

    @classmethod
    def of(cls, text: str) -> "Embedding":
        """FILE or FILE:WORD."""
        path, _, word = text.rpartition(":")
        return cls(Path(text)) if not path or Path(text).exists() else cls(Path(path), word)


def vectors(embedding: Embedding, parts: Parts) -> tuple[str, dict[str, Tensor]]:
    """The word, and its vectors [n, D] by text encoder. Raises EngineError where they are not for these.

    A file that is not safetensors is read as tensors alone, never unpickled.
    """
    pipeline, file = getattr(diffusers, parts.index["_class_name"]), embedding.file
    if not hasattr(pipeline, "load_textual_inversion"):
        raise EngineError(f"{file}: a {pipeline.__name__} takes no embeddings: leave it out")
    word, held = _read(embedding)
    encoders = [name for name in parts.networks if parts.classes[name].startswith("CLIPText")]
    if set(held) != set(encoders):
        raise EngineError(
            f"{file}: holds vectors for {', '.join(held)}; the model has {', '.join(encoders)}: an embedding of "
            "another family; name one that was trained on this"
        )
    for name, tensor in held.items():
        width = parts.config(name).hidden_size
        if tensor.ndim != 2 or tensor.shape[1] != width or not torch.isfinite(tensor).all():
            raise EngineError(
                f"{file}: {list(tensor.shape)} numbers for the {name}; needed vectors of {width}, all finite: an "
                "embedding of another model, or a damaged one"
            )
    return word, held


def _read(embedding: Embedding) -> tuple[str, dict[str, Tensor]]:
    """The word and the vectors [n, D], whichever program wrote them, by text encoder."""
    file = embedding.file
    if not file.is_file():
        raise EngineError(f"{file}: no such file; needed an embedding")
    try:
        state = dict(load_single_file_checkpoint(str(file)))
    except Exception as error:  # the libraries' errors share no base class
        raise EngineError(
            f"{file}: not read as an embedding ({error}): needed one in safetensors or of tensors"
        ) from error
    state = dict(state.get("string_to_param", state))  # of the web interfaces
    tensors = {name: torch.as_tensor(value).detach() for name, value in state.items() if isinstance(value, Tensor)}
    tensors = {name: tensor[None] if tensor.ndim == 1 else tensor for name, tensor in tensors.items()}
    if tensors.keys() == ENCODERS.keys():
        return embedding.word or file.stem, {ENCODERS[name]: tensors[name] for name in ENCODERS}
    if len(tensors) != 1:
        raise EngineError(
            f"{file}: {len(tensors)} tensors; needed one, or {' and '.join(ENCODERS)}, with a word's vectors"
        )
    ((name, tensor),) = tensors.items()
    return embedding.word or (file.stem if name in UNNAMED else name), {ENCODERS["clip_l"]: tensor}


def add(word: str, tensor: Tensor, tokenizer: Any, encoder: Any) -> None:
    """Put a word's vectors [n, D] into a tokenizer and its text encoder. Raises EngineError where it is taken."""
    words = [word, *(f"{word}_{i}" for i in range(1, len(tensor)))]
    if taken := [name for name in words if name in tokenizer.get_vocab()]:
        raise EngineError(f"{taken[0]!r} is a token of the model already: name another word, --embedding FILE:WORD")
    tokenizer.add_tokens(words)
    rows = tokenizer.convert_tokens_to_ids(words)
    if encoder.config.vocab_size <= max(rows):
        encoder.resize_token_embeddings(max(rows) + 1, mean_resizing=False)
    with torch.no_grad():
        table = encoder.get_input_embeddings().weight
        table[rows] = tensor.to(table.dtype)


def written_out(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that gives all tokens of a word of several vectors, as the pipeline writes it out: a, a_1, a_2.

    The tokens become code points of their own, and the word, in the letters that the tokenizer sees, is replaced by
    these. Raises EngineError where there are too many.
    """
    state = json.loads(tokenizer.to_str())
    added = {token["content"]: token for token in state["added_tokens"]}
    words = [word for word in added if f"{word}_1" in added]
    if not words:
        return tokenizer
    places, seen = iter(PLACES), tokenizer.normalizer or normalizers.Sequence([])
    steps = [seen]
    for word in words:
        tokens = [word]
        while (following := f"{word}_{len(tokens)}") in added:
            tokens.append(following)
        taken = list(zip(tokens, places, strict=False))
        if len(taken) < len(tokens):
            raise EngineError(f"{word!r} and others are of more than {len(PLACES)} vectors: leave some out")
        for token, place in taken:
            added[token] |= {"content": place, "normalized": True}
        steps.append(normalizers.Replace(seen.normalize_str(word), "".join(place for _, place in taken)))
    made = Tokenizer.from_str(json.dumps(state))
    made.normalizer = normalizers.Sequence(steps)
    return made
