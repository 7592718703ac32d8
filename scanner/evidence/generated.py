"""Verifications that are kept: a prompt's images are generated once per model and sampling.

In the user's cache folder, which no other user may read, by a hash of all that they depend on; so what was interrupted
goes on, and a nightly report pays only for prompts that it did not look at before. Pixels are kept as PNG has them.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engines.cache import own_folder
from engines.manifest import sha256
from scanner.diffusion.prediction import Array
from scanner.diffusion.start import Watch, unwatched
from scanner.evidence.decomposition import Branches, Deviation, Weights
from scanner.evidence.similarity import Descriptor, correlation, ssim
from scanner.evidence.verification import Fit, Given, Similarity, Verification
from scanner.evidence.verify import Generate, Sampler, Sampling
from scanner.files import replacing
from scanner.identity import digest, identity, prompt_id
from scanner.model import Model
from scanner.model.cache import HEAD
from scanner.model.scorer import EVERYDAY

PIXELS = ("images", "path", "given.image")  # in [-1, 1]
NUMBERS = ("norm_hat", "norm_cond", "norm_uncond", "norm_final", "distance", "distance_uncond")


def verify_all(
    model: Model,
    sampling: Sampling,
    chosen: Mapping[str, Path | None],
    descriptor: Path | None = None,
    watch: Watch = unwatched,
    sweep: Sequence[float] = (),
) -> list[Verification]:
    """Every prompt of `chosen`, with the image of its file, if any: from the cache, or generated and kept there.

    `descriptor`: the file of a copy detector; `sweep`: other guidance scales to sample each prompt at too, each kept
    for itself. Raises InputError, before it generates any, or EngineError.
    """
    compares = None if descriptor is None else Descriptor(descriptor)
    described = "" if descriptor is None else sha256(descriptor)

    def kept(prompt: str, given: Array | None, at: Sampling, generate: Generate) -> Verification:
        image = "" if given is None else digest(given.tobytes())
        path = _path(prompt_id(prompt)[:12], *_model(model), repr(at), described, prompt, image)
        with suppress(OSError, ValueError, KeyError, EOFError):  # none there, or a damaged one
            return _read(path, prompt)
        found = generate()
        _keep(path, found)
        return found

    return Sampler(model.denoiser, sampling, compares).verify_all(chosen, watch, kept, sweep)


def ordinary(model: Model, sampling: Sampling, watch: Watch = unwatched) -> Deviation:
    """D1 and D2 of a few everyday captions, [8] each: what to compare a prompt's with. Kept as images are."""
    path = _path("ordinary", *_model(model), repr(sampling), *EVERYDAY)
    with suppress(OSError, ValueError, KeyError, EOFError):
        held = _arrays(path)
        return Deviation(held["D1"], held["D2"])
    found = Sampler(model.denoiser, sampling).deviations(EVERYDAY, watch=watch)
    deviation = Deviation(found["D1"].to_numpy(), found["D2"].to_numpy())
    _write(path, deviation._asdict())
    return deviation


def beside(found: Verification, candidates: Array, model: Model) -> Verification:
    """With the one of the candidate images [M, 3, h, w] that its own resemble most, as the VAE reconstructs it."""
    seen = model.denoiser.decode(model.denoiser.encode_images(candidates))
    alike = correlation(found.images, seen)  # [S, M]
    nearest = int(np.nan_to_num(alike, nan=-1).mean(0).argmax())
    similarity = Similarity(alike[:, nearest], ssim(found.images, seen[nearest : nearest + 1])[:, 0], None)
    return replace(found, given=Given(seen[nearest], similarity, None))


def _model(model: Model) -> tuple[str, ...]:
    bundle = model.bundle
    return bundle.manifest.fingerprint, bundle.backend, bundle.precision


def _path(name: str, *made_of: str) -> Path | None:
    """None where nothing can be kept: it costs time on the next run, nothing else."""
    with suppress(OSError):
        return own_folder("verified") / f"{name}-{identity({'made_of': made_of})}.npz"
    return None


def _keep(path: Path | None, found: Verification) -> None:
    arrays: dict[str, Any] = {name: getattr(found, name) for name in (*NUMBERS, "images", "path")}
    arrays |= {name: getattr(found, name) for name in ("seeds", "path_steps", "timesteps", "signal_rate", "noise_rate")}
    arrays |= {"guidance_scale": found.guidance_scale} | _part("cosine_x_T", found.cosine_x_T)
    arrays |= _similarity("among", found.among_seeds) | _fit("fit", found.fit) | _fit("uncond", found.fit_uncond)
    if (given := found.given) is not None:
        assert given.fit is not None
        arrays |= {"given.image": given.image} | _similarity("given", given.similarity) | _fit("given", given.fit)
    for name in PIXELS:
        if name in arrays:
            arrays[name] = ((np.clip(arrays[name], -1, 1) + 1) * 127.5).round().astype(np.uint8)
    _write(path, arrays)


def _read(path: Path | None, prompt: str) -> Verification:
    """Raises OSError, ValueError, KeyError or EOFError where there is none intact."""
    held = _arrays(path)
    for name in PIXELS:
        if name in held:
            held[name] = (held[name] / np.float32(127.5) - 1).astype(np.float32)
    fits = {name: _fit_of(name, held) for name in ("fit", "uncond", "given") if f"{name}.weights.w_0" in held}
    given = None
    if "given" in fits:
        given = Given(held["given.image"], _similarity_of("given", held), fits["given"])
    return Verification(
        prompt=prompt, seeds=tuple(held["seeds"].tolist()), path_steps=tuple(held["path_steps"].tolist()),
        timesteps=tuple(held["timesteps"].tolist()), images=held["images"], path=held["path"], given=given,
        signal_rate=held["signal_rate"], noise_rate=held["noise_rate"], among_seeds=_similarity_of("among", held),
        guidance_scale=float(held["guidance_scale"]), cosine_x_T=_part_of("cosine_x_T", held, Branches),
        fit=fits["fit"], fit_uncond=fits["uncond"], **{name: held[name] for name in NUMBERS},
    )  # fmt: skip


def _similarity(name: str, of: Similarity) -> dict[str, Any]:
    return {f"{name}.{kind}": values for kind, values in of._asdict().items() if values is not None}


def _similarity_of(name: str, held: Mapping[str, Any]) -> Similarity:
    return Similarity(held[f"{name}.correlation"], held[f"{name}.ssim"], held.get(f"{name}.descriptor"))


def _fit(name: str, fit: Fit) -> dict[str, Any]:
    return {key: values for kind, of in fit._asdict().items() for key, values in _part(f"{name}.{kind}", of).items()}


def _fit_of(name: str, held: Mapping[str, Any]) -> Fit:
    kinds = {"weights": Weights, "deviation": Deviation, "loss": Branches, "cosine": Branches}
    return Fit(**{kind: _part_of(f"{name}.{kind}", held, of) for kind, of in kinds.items()})


def _part(name: str, of: Weights | Deviation | Branches) -> dict[str, Any]:
    return {f"{name}.{part}": values for part, values in of._asdict().items()}


def _part_of(name: str, held: Mapping[str, Any], kind: type[Any]) -> Any:
    return kind(*(held[f"{name}.{part}"] for part in kind._fields))


def _write(path: Path | None, arrays: Mapping[str, Any]) -> None:
    if path is None:
        return
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    data = stream.getvalue()
    with suppress(OSError), replacing(path) as partial:
        partial.write_bytes(digest(data).encode() + data)


def _arrays(path: Path | None) -> dict[str, Any]:
    if path is None:
        raise FileNotFoundError("no cache")
    data = path.read_bytes()
    if data[:HEAD] != digest(data[HEAD:]).encode():
        raise ValueError("damaged")
    with np.load(io.BytesIO(data[HEAD:]), allow_pickle=False) as held:
        return dict(held)
