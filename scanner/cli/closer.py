"""What closer looks found, beside the captions of a report: the command line hands it from room to room."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from scanner.audit.decision import Night
from scanner.dataset import images
from scanner.dataset.paired_images import paired_images
from scanner.diffusion.start import Watch
from scanner.errors import ScannerError
from scanner.evidence import explain_page, generated, images_page, verify_page
from scanner.evidence.chosen import check_model
from scanner.evidence.verification import Verification, seeds_in_words
from scanner.evidence.verify import Sampling, thumbnails
from scanner.identity import prompt_id
from scanner.model import Model
from scanner.pages import links
from scanner.places import Place, is_url
from scanner.report import Beside, Look
from scanner.report.formats import PICTURES as PAGE
from scanner.store.record import RunRecord

AGAIN = "The report in that folder shows this when it is made again."
ROWS = 4  # dataset rows of a caption whose images are compared with what is generated


def look(night: Night, record: RunRecord, folder: Path, n: int | None, column: str | None, watch: Watch) -> Beside:
    """The `n` highest findings generated in full, and what `images` and `explain` have left in the report's folder.

    `column`: of the dataset's own images, as `overscan images` takes it. Raises ScannerError or EngineError.
    """
    files: dict[str, str] = {}
    looks: dict[str, Look] = {}
    pages = links.siblings(folder, "report.html", () if n is None else (PAGE,))
    pages = pages if n is not None else {title: link for title, link in pages.items() if link != PAGE}
    if n is not None:
        model, sampling = _opened(night, record), Sampling()
        found = generated.verify_all(model, sampling, dict.fromkeys(firsts(night, n)), watch=watch)
        if column is not None:
            found = [_beside(one, night, column, model) for one in found]
        usual = {sampling.guidance_scale: generated.ordinary(model, sampling, watch)}
        files[PAGE] = verify_page.render(found, sampling, Path(record.model).name, usual, pages, PAGE)
        looks = {prompt_id(one.prompt): _seen(one) for one in found}
    for each in (_of_images(folder, night), _of_words(folder, night)):
        for prompt, more in each.items():
            before = looks.get(prompt, Look())
            looks[prompt] = replace(
                before,
                pictures=(*before.pictures, *more.pictures),
                measures=(*before.measures, *more.measures),
                words=more.words,
            )
    return Beside(looks, files, pages)


def reported(folder: Path) -> bool:
    """Whether a report is in the folder, which shows what is added to it only when it is made again."""
    return (folder / "report.html").exists()


def following(record: RunRecord, out: Place, looked: Beside, pictures: Sequence[str]) -> str | None:
    """The command to type next: `pictures`, where there are none yet, then the words that the highest rest on."""
    if not looked.files:
        return shlex.join(["overscan", *pictures])
    if any(look.words for look in looked.looks.values()):
        return None
    config = record.config
    options = ["--backend", record.backend, "--precision", record.precision, "--seeds", str(len(config.seeds))]
    options += ["--first-steps", str(config.first_steps), "--guidance-scale", f"{config.guidance_scale:g}"]
    options += ["--timesteps", ",".join(map(str, config.told)) or "first", "--prior-noises", str(config.prior_noises)]
    options += [] if record.reference is None else ["--reference", record.reference.path]
    options += [] if record.base is None else ["--base-model", record.base.path]
    places = ["--report", str(out), "--model", record.model, "--out", str(out)]
    return shlex.join(["overscan", "explain", *places, *options])


def firsts(night: Night, n: int) -> list[str]:
    """The texts of the highest captions of the `n` highest findings."""
    flagged = night.prompts.sort("rank")
    finding = pl.col("finding_id").fill_null(pl.col("prompt_id"))
    return (
        flagged.with_columns(finding).unique("finding_id", keep="first", maintain_order=True)["text"].head(n).to_list()
    )


def _opened(night: Night, record: RunRecord) -> Model:
    """The model of a run, as it ran. Raises ScannerError where it is not there, or another one."""
    if not is_url(record.model) and not Path(record.model).is_dir():
        raise ScannerError(f"{record.model}: the scan's model is not there any more: --verify generates with it")
    model = Model(record.model, record.backend, record.precision)
    check_model(night.summary, Path(record.model), model.bundle.manifest.fingerprint)
    return model


def _beside(found: Verification, night: Night, column: str, model: Model) -> Verification:
    """With the nearest of the images that the dataset gives for the captions of its finding."""
    own = night.ranked.filter(prompt_id=prompt_id(found.prompt)).collect()
    same = night.prompts.filter(pl.col("finding_id") == own["finding_id"][0])["prompt_id"]
    rows = night.flagged.filter(pl.col("prompt_id").is_in([*same, *own["prompt_id"]]))
    rows = rows.group_by("prompt_id", maintain_order=True).head(ROWS)
    height, width = model.denoiser.image_size
    given = [
        image.pixels
        for (file,), part in rows.group_by("file", maintain_order=True)
        for image in paired_images(str(file), set(part["row"]), column, height, width)
        if image.pixels is not None
    ]
    return generated.beside(found, np.stack(given), model) if given else found


def _seen(found: Verification) -> Look:
    """The pictures of a verified prompt, small, and what they say."""
    seeds = zip(found.seeds, thumbnails(found.images), strict=True)
    pictures = [(f"seed {seed}", images.png(image)) for seed, image in seeds]
    verdict = seeds_in_words(found)
    if found.given is not None:
        alike = float(found.given.similarity.correlation.mean())
        pictures.insert(
            0, (f"dataset's own image, {alike:.2f} alike", images.png(thumbnails(found.given.image[None])[0]))
        )
        verdict += f"; {found.copying} of {len(found.seeds)} reproduce the dataset's own image"
    measures = [("correlation between seeds", f"{found.mean_correlation:.3f}")]
    link = f"{PAGE}#p{prompt_id(found.prompt)[:12]}"
    return Look(verdict=verdict[0].upper() + verdict[1:], pictures=pictures, measures=measures, page=link)


def _of_images(folder: Path, night: Night) -> dict[str, Look]:
    """What `overscan images` left in the folder, of this scan."""
    return {
        row["prompt_id"]: Look(pictures=tuple(images_page.pictures(row)), measures=images_page.measures(row), page=None)
        for row in images_page.read(folder, night.summary.scan_id).iter_rows(named=True)
    }


def _of_words(folder: Path, night: Night) -> dict[str, Look]:
    """What `overscan explain` left in the folder, of this scan: captions with the words to delete."""
    summary = night.summary
    found = explain_page.read(folder, summary.scan_id, summary.score, summary.threshold)
    return {prompt: Look(words=words) for prompt, words in found.items()}
