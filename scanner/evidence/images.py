"""A second pass over a scan's top candidates: how much of their paired images do the first steps already hold?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import polars.selectors as cs

from scanner.dataset import images
from scanner.dataset.paired_images import PairedImage, paired_images
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.injection import discrepancy, injection, latents
from scanner.diffusion.prediction import Array
from scanner.diffusion.start import Watch, unwatched
from scanner.errors import InputError, ScannerError
from scanner.evidence.decomposition import Floats, cosine, least_squares, loss
from scanner.evidence.verify import thumbnails
from scanner.identity import shown
from scanner.model import Model, Scorer
from scanner.store.stored import StoredScan

ROWS = 16  # of one prompt whose images are looked at: the first ones; a web dataset has captions of thousands
PICTURES = ("picture", "nearest_picture")  # PNG, small; of the image of each prompt that its first step holds most
BRANCHES = ("hat", "cond", "uncond")
STEPS = [f"{kind}_{branch}" for kind in ("loss", "cosine_x_0", "cosine_x_T") for branch in BRANCHES]  # lists, by step
SCHEMA: dict[str, pl.DataType] = {
    "prompt_id": pl.String(), "text": pl.String(), "file": pl.String(), "row": pl.Int64(), "image": pl.String(),
    "status": pl.String(), "problem": pl.String(), "injection": pl.Float32(), "injection_cosine": pl.Float32(),
    "injection_prior": pl.Float32(), "injection_cosine_prior": pl.Float32(),
    "E_rel": pl.Float32(), "r_perp": pl.Float32(),
    "w_0": pl.List(pl.Float32()), "w_T": pl.List(pl.Float32()), **{name: pl.List(pl.Float32()) for name in STEPS},
    "nearest_image": pl.String(), "nearest_injection_prior": pl.Float32(), "nearest_cosine_prior": pl.Float32(),
    "picture": pl.Binary(), "nearest_picture": pl.Binary(),
}  # fmt: skip


@dataclass(frozen=True)
class Gallery:
    """The readable images of all candidates: names, latents x_0 [N, C, H, W], and small copies as PNG."""

    names: Sequence[str]
    x_0: Array
    pictures: Sequence[bytes]


def look(
    stored: StoredScan,
    model: Model,
    column: str,
    score: str,
    top: int,
    watch: Watch = unwatched,
) -> pl.DataFrame:
    """A row per image of the `top` prompts by `score`, the first ROWS dataset rows of each, highest score first.

    Columns: SCHEMA. `injection` and its cosine, plain and by the prior, `E_rel` and `r_perp` of the first step; `w_0`,
    `w_T` after each scanned step; `loss_` and `cosine_` at each, as `scanner.evidence.decomposition` has them, of the
    predictions with guidance, for the prompt and for the empty one: means over seeds for the row's own image.
    `nearest_`: of all images the one of the highest cosine by the prior: a caption may be memorized with another image
    than its own. Raises ScannerError for another model, InputError for a column or tar that is not there, or no
    readable image.
    """
    made = stored.record.made_with
    if made.scan_id(model.bundle.manifest.fingerprint) != stored.full_scan_id:
        raise ScannerError(f"{model.path}: not the model of scan {shown(stored.scan_id)}, {made.model}: name it")
    rows = _candidates(stored, score, top)
    scorer = model.adapted(config=made.config.with_timesteps(())).scorer(watch)  # a path has the sampler's own
    found, gallery = _gallery(rows, column, scorer.denoiser, watch)
    prompts = rows.unique("prompt_id", maintain_order=True)
    parts = []
    for i in range(0, len(prompts), scorer.chunk):
        watch("images", i, len(prompts))
        part = prompts[i : i + scorer.chunk]
        parts.append(_measure(scorer, part["text"].to_list(), found.join(part, "prompt_id", "semi"), gallery))
    watch("images", len(prompts), len(prompts))
    measured = pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)
    return measured.select(*SCHEMA)


def _candidates(stored: StoredScan, score: str, top: int) -> pl.DataFrame:
    """[place, prompt_id, text, file, row] of the first ROWS dataset rows of the `top` prompts."""
    known = stored.prompts.filter(pl.col("status") == "scored", pl.col(score).is_not_null())
    best = known.sort(score, "prompt_id", descending=[True, False]).head(top).select("prompt_id", "text").collect()
    if best.is_empty():
        raise ScannerError(
            f"{stored.store}: no prompt of scan {shown(stored.scan_id)} has a {score}: name another score"
        )
    bearing = stored.captions.join(best.lazy().with_row_index("place"), "text").collect(engine="streaming")
    rows = bearing.unique(["text", "file", "row"]).sort("place", "file", "row").group_by("text", maintain_order=True)
    return rows.head(ROWS).select("prompt_id", "text", "file", "row")


def _gallery(rows: pl.DataFrame, column: str, denoiser: Denoiser, watch: Watch) -> tuple[pl.DataFrame, Gallery]:
    """The rows with their images' name, status, problem and place `x` in the gallery; each image encoded once."""
    height, width = denoiser.image_size
    names: list[str] = []
    pictures: list[bytes] = []
    described: list[dict[str, object]] = []
    waiting: list[Array] = []
    parts: list[Array] = []

    def encode() -> None:
        parts.append(denoiser.encode_images(np.stack(waiting)))
        waiting.clear()

    for (file,), of_file in rows.group_by("file", maintain_order=True):
        for paired in paired_images(str(file), set(of_file["row"]), column, height, width):
            watch("encode images", len(described), len(rows))
            described.append(_described(str(file), paired, len(names)))
            if paired.pixels is not None:
                names.append(f"{file}#{paired.row}" if paired.image is None else paired.image)
                waiting.append(paired.pixels)
                pictures.append(images.png(thumbnails(paired.pixels[None])[0]))
            if len(waiting) == denoiser.image_batch:
                encode()
    if waiting:
        encode()
    if not parts:
        raise InputError(f"no readable image for {len(rows)} rows, the first: {described[0]['problem']}")
    schema = {name: SCHEMA[name] for name in ("file", "row", "image", "status", "problem")} | {"x": pl.Int64()}
    table = pl.DataFrame(described, schema=schema)
    return rows.join(table, ["file", "row"], maintain_order="left"), Gallery(names, np.concatenate(parts), pictures)


def _described(file: str, paired: PairedImage, place: int) -> dict[str, object]:
    x = None if paired.pixels is None else place
    return {"file": file} | paired._asdict() | {"pixels": None, "x": x}


def _measure(scorer: Scorer, texts: Sequence[str], rows: pl.DataFrame, gallery: Gallery) -> pl.DataFrame:
    """The quantities of the rows of a chunk of prompts."""
    trace = scorer.trace(scorer.encode(texts))
    assert trace.prior is not None
    prior, x0_hat = trace.prior, trace.hat.x0[0]
    plain, pointing = (part.mean(1) for part in injection(x0_hat, gallery.x_0, prior.mean))  # [B, N]
    by_prior, cosine_prior = (part.mean(1) for part in injection(x0_hat, gallery.x_0, prior.mean, prior.covariance))
    nearest = np.where(np.isnan(cosine_prior), -np.inf, cosine_prior).argmax(1)  # [B]
    b = rows["text"].replace_strict(list(texts), list(range(len(texts))), return_dtype=pl.Int64).to_numpy()
    x, n = rows["x"].fill_null(0).to_numpy(), nearest[b]
    steps = latents(trace, scorer.denoiser.schedule, scorer.config.num_inference_steps)
    x_0, x_T = gallery.x_0[x][:, None], trace.x_t[0][b]
    weights = least_squares(steps[:, b], x_0, x_T)  # [K, rows, S] each
    off = discrepancy(trace.text_estimate[0][b], x_0, prior.mean)  # [rows, S] each
    branches = dict(zip(BRANCHES, (trace.hat, trace.cond, trace.uncond), strict=True))
    own = {
        "injection": plain[b, x],
        "injection_cosine": pointing[b, x],
        "injection_prior": by_prior[b, x],
        "injection_cosine_prior": cosine_prior[b, x],
        "E_rel": off.E_rel.mean(1),
        "r_perp": off.r_perp.mean(1),
        "w_0": _by_step(weights.w_0),
        "w_T": _by_step(weights.w_T),
        **{f"loss_{name}": _by_step(loss(of.x0[:, b], x_0)) for name, of in branches.items()},
        **{f"cosine_x_0_{name}": _by_step(cosine(of.eps[:, b], x_0)) for name, of in branches.items()},
        **{f"cosine_x_T_{name}": _by_step(cosine(of.eps[:, b], x_T)) for name, of in branches.items()},
    }
    nearest_of = {
        "nearest_image": [gallery.names[i] for i in n],
        "nearest_injection_prior": by_prior[b, n],
        "nearest_cosine_prior": cosine_prior[b, n],
    }
    drawn = {"picture": [gallery.pictures[i] for i in x], "nearest_picture": [gallery.pictures[i] for i in n]}
    every = {name: pl.Series(name, np.asarray(v).tolist(), SCHEMA[name]) for name, v in (own | nearest_of).items()}
    mine = [pl.when(pl.col("x").is_not_null()).then(every[name]).alias(name) for name in own]
    whole = rows.with_columns(*mine, *(every[name] for name in nearest_of)).with_columns(cs.float().fill_nan(None))
    best = pl.col("injection_cosine_prior").rank("ordinal", descending=True).over("prompt_id") == 1
    shown = [pl.Series(name, values, SCHEMA[name]) for name, values in drawn.items()]
    return whole.with_columns(*shown).with_columns(pl.when(best).then(pl.col(PICTURES))).select(*SCHEMA)


def _by_step(values: Floats) -> Floats:
    """Means over seeds: [K, rows, S] -> [rows, K]."""
    return np.asarray(values.mean(2).T)
