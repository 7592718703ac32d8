"""Verifications as files: one self-contained page, the images, and the numbers."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from scanner.dataset import images
from scanner.errors import ScannerError, first_line
from scanner.evidence.decomposition import Deviation
from scanner.evidence.plots import Line, step_plot
from scanner.evidence.verification import AGREE, Fit, Similarity, Verification, headline, seeds_in_words, verdict
from scanner.evidence.verify import THUMBNAIL, Sampling
from scanner.files import replacing_folder
from scanner.identity import prompt_id
from scanner.pages import links, page, safe
from scanner.pages.svg import COLOURS

TEMPLATE = Path(__file__).parent / "verify.html.j2"
FILES = ("verify.html", "verify.json", "verify.parquet")
CHARACTERS = 500  # of a prompt; text encoders read fewer
BLUE, ORANGE, GREEN, GREY = COLOURS[0], COLOURS[2], COLOURS[3], COLOURS[5]


def write(
    out: Path, found: Sequence[Verification], sampling: Sampling, model: str, ordinary: Deviation | None = None
) -> list[Path]:
    """Write `verify.html`, `verify.json`, `verify.parquet` and a folder of images per prompt into the folder `out`.

    `ordinary`: D1 and D2 of everyday captions, to compare with. All appear together, as
    `scanner.files.replacing_folder` has it, and pictures of an earlier verification go. Returns the paths of the three
    files. Raises ScannerError where it cannot.
    """
    drawn = [_images(one) | charts(one) for one in found]
    try:
        with replacing_folder(out, _ours) as partial:
            for one, files in zip(found, drawn, strict=True):
                (partial / _folder(one)).mkdir(exist_ok=True)
                for name, data in files.items():
                    (partial / _folder(one) / name).write_bytes(data)
            numbers = {
                "model": model,
                "sampling": asdict(sampling),
                "ordinary": None
                if ordinary is None
                else {name: of.tolist() for name, of in ordinary._asdict().items()},
                "prompts": [summary(one) for one in found],
            }
            text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            (partial / "verify.json").write_bytes(text.encode())
            steps(found).write_parquet(partial / "verify.parquet")
            pages = links.siblings(out, "verify.html")
            (partial / "verify.html").write_bytes(render(found, sampling, model, ordinary, pages).encode())
    except (OSError, pl.exceptions.ComputeError) as error:
        raise ScannerError(f"{out}: cannot be written ({first_line(error)}): needed a folder to write to") from error
    return [out / name for name in FILES]


def _ours(name: str) -> bool:
    """Whether a file or folder of that name is of a verification: also pictures of prompts of an earlier one."""
    return name in FILES or re.fullmatch(r"[0-9a-f]{12}", name) is not None


def _folder(found: Verification) -> str:
    return prompt_id(found.prompt)[:12]


def _images(found: Verification) -> dict[str, bytes]:
    """PNG files by name."""
    files = {f"seed-{seed}.png": images.png(image) for seed, image in zip(found.seeds, found.images, strict=True)}
    if found.given is not None:
        files["given.png"] = images.png(found.given.image)
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in found.path], axis=2)  # [3, S*h, M*w]
    return files | {"path.png": images.png(grid)}


def render(
    found: Sequence[Verification],
    sampling: Sampling,
    model: str,
    ordinary: Deviation | None,
    pages: Mapping[str, str],
    here: str = "verify.html",
) -> str:
    """The page, which holds its images itself, and is called `here`. `pages`: title -> link of those in its folder."""
    made = f"{datetime.now(UTC):%F}"
    named = safe.visible_text(model, CHARACTERS)
    return page.render(
        TEMPLATE, {"style": "verify.css"}, f"Overscan verification, {made}",
        cards=[_card(one, ordinary) for one in found], headline=headline(found), sampling=sampling, model=named,
        agree=AGREE, pages=pages, made=made, here=here,
    )  # fmt: skip


def _card(found: Verification, ordinary: Deviation | None) -> dict[str, Any]:
    """What the template shows of one prompt."""
    given, files = found.given, _images(found) | charts(found)
    return {
        "id": _folder(found),
        "prompt": safe.visible_text(found.prompt, CHARACTERS),
        "verdict": verdict(found),
        "seeds_agree": seeds_in_words(found),
        "seeds": found.seeds,
        "small": found.images.shape[-1] < THUMBNAIL,
        "images": [_uri(files[f"seed-{seed}.png"]) for seed in found.seeds],
        "given": None if given is None else _uri(files["given.png"]),
        "to_given": None if given is None else given.similarity,
        "among": _pairs(found.among_seeds),
        "path": [[_uri(images.png(image)) for image in row] for row in found.path.swapaxes(0, 1)],
        "path_steps": [(step, found.timesteps[step]) for step in found.path_steps],
        "deviations": _deviations(found, ordinary),
        "charts": [Markup(data.decode()) for name, data in files.items() if name.endswith(".svg")],
    }


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _pairs(similarity: Similarity) -> list[tuple[str, float, float]]:
    """(measure, mean, least) over pairs of different seeds."""
    named = zip(("correlation", "SSIM", "descriptor"), similarity, strict=True)
    pairs = [(name, kind[np.triu_indices(len(kind), 1)]) for name, kind in named if kind is not None]
    return [(name, float(values.mean()), float(values.min())) for name, values in pairs]


def _deviations(found: Verification, ordinary: Deviation | None) -> list[tuple[str, str, str]]:
    """(which x_0, D1, D2)."""
    fits = {"each seed's generated image": found.fit}
    if found.fit_given is not None:
        fits["given image"] = found.fit_given
    rows = [(name, f"{float(fit.deviation.D1):+.2f}", f"{float(fit.deviation.D2):+.2f}") for name, fit in fits.items()]
    if ordinary is not None:
        D1, D2 = (f"{of.min():+.2f} to {of.max():+.2f}" for of in ordinary)
        rows.append((f"{len(ordinary.D1)} everyday captions", D1, D2))
    empty = found.fit_uncond.deviation
    return [*rows, ("empty prompt, no guidance", f"{float(empty.D1):+.2f}", f"{float(empty.D2):+.2f}")]


def charts(found: Verification) -> dict[str, bytes]:
    """SVG files by name: the weights against the schedule, the clean estimate's size, the distance between seeds."""
    hat, cond, uncond = (
        (norm / found.norm_final).mean(1) for norm in (found.norm_hat, found.norm_cond, found.norm_uncond)
    )
    drawn = {"weights": _weights("Image and noise in the path, x_0 = generated", found, found.fit)}
    if found.fit_given is not None:
        drawn["weights-given"] = _weights("Image and noise in the path, x_0 = given", found, found.fit_given)
    drawn["estimate"] = step_plot(
        "Overestimation: size of the estimated image", "RMS of the clean estimate / of the final latent, mean of seeds",
        [
            Line("guided", hat, ORANGE),
            Line("prompt, unguided", cond, BLUE),
            Line("empty prompt", uncond, GREY, dashed=True),
        ],
    )  # fmt: skip
    drawn["distance"] = step_plot(
        "Collapse: distance between seeds", "mean distance / sqrt(d)",
        [Line("this prompt", found.distance, ORANGE), Line("empty prompt", found.distance_uncond, GREY, True)],
    )  # fmt: skip
    return {f"{name}.svg": svg.encode() for name, svg in drawn.items()}


def _weights(title: str, found: Verification, fit: Fit) -> str:
    lines = [
        Line("w_0: the image", fit.weights.w_0.mean(1), ORANGE),
        Line("schedule a_t", found.signal_rate, ORANGE, dashed=True),
        Line("w_T: the noise", fit.weights.w_T.mean(1), BLUE),
        Line("schedule s_t", found.noise_rate, BLUE, dashed=True),
        Line("residual", fit.weights.residual.mean(1), GREEN),
    ]
    return step_plot(title, "weight, mean of seeds", lines)


def summary(found: Verification) -> dict[str, Any]:
    """The numbers of one prompt that are not per step, as JSON has them (NaN: null)."""
    given, fit_given = found.given, found.fit_given
    return {
        "prompt_id": prompt_id(found.prompt),
        "prompt": found.prompt,
        "verdict": verdict(found),
        "agreeing_seeds": found.agreeing,
        "copying_seeds": found.copying,
        "among_seeds": _plain(found.among_seeds),
        "to_given": None if given is None else _plain(given.similarity),
        "seed_distance_start": _finite(float(found.distance[0])),
        "seed_distance_end": _finite(float(found.distance[-1])),
        "D1": float(found.fit.deviation.D1),
        "D2": float(found.fit.deviation.D2),
        "D1_empty_prompt": float(found.fit_uncond.deviation.D1),
        "D2_empty_prompt": float(found.fit_uncond.deviation.D2),
        "D1_given": None if fit_given is None else float(fit_given.deviation.D1),
        "D2_given": None if fit_given is None else float(fit_given.deviation.D2),
    }


def _plain(similarity: Similarity) -> Mapping[str, Any]:
    return {
        name: None if kind is None else [_finite(part) for part in kind.tolist()]
        for name, kind in similarity._asdict().items()
    }


def _finite(number: Any) -> Any:
    """A number, or a list of numbers, with None for NaN."""
    if isinstance(number, list):
        return [_finite(part) for part in number]
    return None if np.isnan(number) else round(number, 6)


def steps(found: Sequence[Verification]) -> pl.DataFrame:
    """A row per prompt, seed and step: weights, residuals, norms, and the distance between the prompt's seeds."""
    return pl.concat([_steps(one) for one in found])


def _steps(found: Verification) -> pl.DataFrame:
    K, S = found.norm_hat.shape
    fits = {"": found.fit, "_given": found.fit_given}
    columns: dict[str, Any] = {
        "prompt_id": [prompt_id(found.prompt)] * (K * S),
        "seed": np.tile(found.seeds, K),
        "step": np.repeat(np.arange(K), S),
        "timestep": np.repeat(found.timesteps, S),
        "signal_rate": np.repeat(found.signal_rate, S),
        "noise_rate": np.repeat(found.noise_rate, S),
    }
    for suffix, fit in fits.items():
        for name in ("w_0", "w_T", "residual"):
            values = np.full((K, S), np.nan) if fit is None else getattr(fit.weights, name)
            columns[name + suffix] = values.ravel()
    for name in ("norm_hat", "norm_cond", "norm_uncond"):
        columns[name] = getattr(found, name).ravel()
    columns["seed_distance"] = np.repeat(found.distance[:K], S)
    columns["seed_distance_uncond"] = np.repeat(found.distance_uncond[:K], S)
    return pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None))
