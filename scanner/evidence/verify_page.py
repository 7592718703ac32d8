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
from scanner.evidence.decomposition import Branches, Deviation
from scanner.evidence.plots import Line, scale_plot, step_plot
from scanner.evidence.verification import AGREE, Fit, Similarity, Verification, headline, seeds_in_words, verdict
from scanner.evidence.verify import THUMBNAIL, Sampling, thumbnails
from scanner.evidence.verify_numbers import steps, summary
from scanner.files import replacing_folder
from scanner.identity import prompt_id
from scanner.pages import links, page, safe
from scanner.pages.svg import COLOURS

TEMPLATE = Path(__file__).parent / "verify.html.j2"
FILES = ("verify.html", "verify.json", "verify.parquet")
CHARACTERS = 500  # of a prompt; text encoders read fewer
BLUE, ORANGE, GREEN, GREY = COLOURS[0], COLOURS[2], COLOURS[3], COLOURS[5]

Ordinary = Mapping[float, Deviation]  # D1 and D2 of everyday captions, to compare with, by guidance scale; or none


def write(out: Path, found: Sequence[Verification], sampling: Sampling, model: str, ordinary: Ordinary) -> list[Path]:
    """Write `verify.html`, `verify.json`, `verify.parquet` and a folder of images per prompt into the folder `out`.

    All appear together, as `scanner.files.replacing_folder` has it, and pictures of an earlier verification go. Returns
    the paths of the three files. Raises ScannerError where it cannot.
    """
    drawn = [_images(one) | charts(one, ordinary) for one in found]
    try:
        with replacing_folder(out, _ours) as partial:
            for one, files in zip(found, drawn, strict=True):
                (partial / _folder(one)).mkdir(exist_ok=True)
                for name, data in files.items():
                    (partial / _folder(one) / name).write_bytes(data)
            numbers = {
                "model": model,
                "sampling": asdict(sampling),
                "ordinary": [
                    {"guidance_scale": g, "D1": of.D1.tolist(), "D2": of.D2.tolist()} for g, of in ordinary.items()
                ],
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
    for one in found.swept:
        named = zip(one.seeds, one.images, strict=True)
        files |= {f"scale-{one.guidance_scale:g}-seed-{seed}.png": images.png(image) for seed, image in named}
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in found.path], axis=2)  # [3, S*h, M*w]
    return files | {"path.png": images.png(grid)}


def render(
    found: Sequence[Verification],
    sampling: Sampling,
    model: str,
    ordinary: Ordinary,
    pages: Mapping[str, str],
    here: str = "verify.html",
) -> str:
    """The page, which holds its images itself, and is called `here`. `pages`: title -> link of those in its folder."""
    made = f"{datetime.now(UTC):%F}"
    named = safe.visible_text(model, CHARACTERS)
    return page.render(
        TEMPLATE, {"style": "verify.css"}, f"Overscan verification, {made}",
        cards=[_card(one, ordinary) for one in found], headline=headline(found), sampling=sampling, model=named,
        agree=AGREE, pages=pages, made=made, here=here, usual=bool(ordinary),
    )  # fmt: skip


def _card(found: Verification, ordinary: Ordinary) -> dict[str, Any]:
    """What the template shows of one prompt."""
    given, files = found.given, _images(found) | charts(found, ordinary)
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
        "deviations": _deviations(found, ordinary.get(found.guidance_scale)),
        "sweep": [_at_scale(one, ordinary.get(one.guidance_scale)) for one in found.by_scale],
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


def _at_scale(found: Verification, ordinary: Deviation | None) -> dict[str, Any]:
    """A row of the table of guidance scales, and its images."""
    to_given = [] if found.given is None else [f"{float(found.given.similarity.correlation.mean()):.3f}"]
    usual = [] if ordinary is None else [f"{of.min():+.2f} to {of.max():+.2f}" for of in ordinary]
    deviations = [f"{float(of):+.2f}" for of in found.fit.deviation]
    return {
        "scale": f"{found.guidance_scale:g}",
        "cells": [f"{found.mean_correlation:.3f}", *to_given, *deviations, *usual],
        "images": [_uri(images.png(image)) for image in thumbnails(found.images)],
    }


def charts(found: Verification, ordinary: Ordinary) -> dict[str, bytes]:
    """SVG files by name: the weights against the schedule, the clean estimate's size and its distance from the image,
    what of image and noise is in the predicted noise, the distance between seeds; and all over guidance scales."""
    hat, cond, uncond = (
        (norm / found.norm_final).mean(1) for norm in (found.norm_hat, found.norm_cond, found.norm_uncond)
    )
    drawn = {"weights": _weights("Image and noise in the path, x_0 = generated", found, found.fit)}
    fit, x_0 = found.fit, "generated"
    if found.fit_given is not None:
        fit, x_0 = found.fit_given, "given"
        drawn["weights-given"] = _weights("Image and noise in the path, x_0 = given", found, fit)
    drawn["estimate"] = step_plot(
        "Overestimation: size of the estimated image", "RMS of the clean estimate / of the final latent, mean of seeds",
        _branches(Branches(hat, cond, uncond)),
    )  # fmt: skip
    drawn["loss"] = step_plot(
        f"Overshooting: distance of the estimate from x_0 = {x_0}", "RMS per latent element, mean of seeds",
        _branches(Branches(*(np.sqrt(of).mean(1) for of in fit.loss))),
    )  # fmt: skip
    for name, of, words in (("x_0", fit.cosine, f"x_0 = {x_0}"), ("x_T", found.cosine_x_T, "the starting noise x_T")):
        drawn[f"cosine-{name}"] = step_plot(
            f"What the predicted noise holds of {words}", "cosine, mean of seeds",
            _branches(Branches(*(branch.mean(1) for branch in of))),
        )  # fmt: skip
    drawn["distance"] = step_plot(
        "Collapse: distance between seeds", "mean distance / sqrt(d)",
        [Line("this prompt", found.distance, ORANGE), Line("empty prompt", found.distance_uncond, GREY, True)],
    )  # fmt: skip
    if found.by_scale:
        drawn |= _sweep(found.by_scale, ordinary)
    return {f"{name}.svg": svg.encode() for name, svg in drawn.items()}


def _branches(of: Branches) -> list[Line]:
    return [
        Line("guided", of.hat, ORANGE),
        Line("prompt, unguided", of.cond, BLUE),
        Line("empty prompt", of.uncond, GREY, dashed=True),
    ]


def _sweep(by_scale: Sequence[Verification], ordinary: Ordinary) -> dict[str, Markup]:
    """Plots over the guidance scale."""
    scales = [one.guidance_scale for one in by_scale]
    alike = [Line("between seeds", np.array([one.mean_correlation for one in by_scale]), BLUE)]
    if all(one.given is not None for one in by_scale):
        to_given = [one.given.similarity.correlation.mean() for one in by_scale if one.given is not None]
        alike.append(Line("with the given image", np.array(to_given), ORANGE))
    away = []
    for name, colour in (("D1", ORANGE), ("D2", BLUE)):
        away.append(Line(name, np.array([getattr(one.fit.deviation, name) for one in by_scale]), colour))
        if all(scale in ordinary for scale in scales):
            usual = np.array([getattr(ordinary[scale], name).mean() for scale in scales])
            away.append(Line(f"{name}, everyday captions", usual, colour, dashed=True))
    return {
        "sweep-similarity": scale_plot("Guidance and likeness", "correlation, mean", scales, alike),
        "sweep-deviations": scale_plot("Guidance and deviation from the schedule", "D1, D2", scales, away),
    }


def _weights(title: str, found: Verification, fit: Fit) -> str:
    lines = [
        Line("w_0: the image", fit.weights.w_0.mean(1), ORANGE),
        Line("schedule a_t", found.signal_rate, ORANGE, dashed=True),
        Line("w_T: the noise", fit.weights.w_T.mean(1), BLUE),
        Line("schedule s_t", found.noise_rate, BLUE, dashed=True),
        Line("residual", fit.weights.residual.mean(1), GREEN),
    ]
    return step_plot(title, "weight, mean of seeds", lines)
