"""What a reader sees first: the README's picture, sample output and table of results, made of what was measured.

    python tools/first_screen.py [--work build/ground-truth] [--store overscan-demo/store]

The picture, docs/first-step.png, is of the bundled model, and is made where WORK holds its training images (the work
folder of `python -m tools.ground_truth`). Each row: the caption's training image, the model's clean estimates at the
first step from two seeds, and the finished images of four. The sample is what
a report of the demo's scan prints, on the cpu backend: STORE has it already, or it is made. The table is taken from
docs/detection and docs/performance.md. Both are written between their marks into README.md, the table into
docs/detecting.md too; tests compare.
"""

import argparse
import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from scanner import Model, Rule, read_store, scan
from scanner.audit.decision import decide
from scanner.demo import BUNDLE, CAPTIONS, LABELS
from scanner.diffusion.scores import DEFAULT_SCORE
from scanner.evidence.evaluate import NORM
from scanner.evidence.verify import Sampler, Sampling
from scanner.report import contents_of
from scanner.report import table as report_table

ROOT = Path(__file__).parent.parent
DOCS, README = ROOT / "docs", ROOT / "README.md"
SIDE, GAP, TOP = 120, 8, 46
SHOWN = 2  # seeds of the first step
HEADS = ("in the training data", "the estimate at step 1 of 50", "what 50 steps make of four seeds")
MODELS = ("v-prediction", "epsilon", "v-confirmation", "epsilon-confirmation")
ROWS = (  # what it is called, its score, how fast it comes
    ("the norm of the literature", NORM, "1 (scripts run four passes)"),
    ("the default", DEFAULT_SCORE, "{small} on a smaller model; {full} at Stable Diffusion 1.5's size"),
)
INK, PAPER = (60, 60, 60), (255, 255, 255)


def tiles(prompt: str, work: Path, sampler: Sampler) -> list[Image.Image]:
    """Training image, estimates, and finished images of a caption that the model was shown."""
    shown = np.load(work / "dataset.npz")
    (training,) = shown["images"][shown["image"][shown["prompts"] == prompt]]
    found = sampler.verify(prompt)
    return [
        _shown(Image.fromarray(training.transpose(1, 2, 0))),
        *map(_image, found.path[0][:SHOWN]),
        *map(_image, found.images),
    ]


def _image(pixels: NDArray[np.float32]) -> Image.Image:
    """Of [3, h, w] in -1..1."""
    return _shown(Image.fromarray(((pixels.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)))


def _shown(image: Image.Image) -> Image.Image:
    return image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def picture(rows: dict[str, list[Image.Image]]) -> Image.Image:
    """The rows below one another, each under its caption."""
    font, small = ImageFont.load_default(15), ImageFont.load_default(14)
    columns = len(next(iter(rows.values())))
    x = [i * (SIDE + GAP) + GAP * 2 * ((i > 0) + (i > SHOWN)) for i in range(columns)]
    height = SIDE + 32
    whole = Image.new("RGB", (x[-1] + SIDE, TOP + height * len(rows)), PAPER)
    draw = ImageDraw.Draw(whole)
    for head, column in zip(HEADS, (0, 1, 1 + SHOWN), strict=True):
        draw.text((x[column], 8), head if column else head.replace(" data", "\ndata"), INK, small)
    for i, (caption, images) in enumerate(rows.items()):
        y = TOP + i * height
        for at, image in zip(x, images, strict=True):
            whole.paste(image, (at, y))
        draw.text((0, y + SIDE + 4), caption, INK, font)
    return whole


def measured() -> dict[str, pl.DataFrame]:
    """Of each model, all settings, collapsed captions left out."""
    paths = {name: DOCS / f"detection/{name}-scores.csv" for name in MODELS}
    return {name: pl.read_csv(path).filter(collapsed="left out") for name, path in paths.items() if path.exists()}


def table(found: Mapping[str, pl.DataFrame], performance: str) -> str:
    """Found at 1 % and at 0.1 % false alarms by model, and speed. Raises SystemExit without them."""
    if not found:
        raise SystemExit("docs/detection: no table of scores: run python -m tools.ground_truth.detection")
    lines = [
        "| at two UNet passes per caption | found at 1 % false alarms | at 0.1 % | relative speed |",
        "|---|---|---|---|",
    ]
    small, full = _ratios(performance)
    for said, score, speed in ROWS:
        rows = [_row(model, score) for model in found.values()]
        ones, tenths = (" / ".join(f"{row[f'tpr_at_{fpr}']:.0%}" for row in rows) for fpr in (0.01, 0.001))
        lines.append(f"| {said} | {ones} | {tenths} | {speed.format(small=small, full=full)} |".replace("%", " %"))
    counts = [[model[of][0] for model in found.values()] for of in ("positives", "negatives")]
    memorized, others = (f"{min(each):,} to {max(each):,}" for each in counts)
    models = ", ".join(found)
    return "\n".join([*lines, "", f"Models: {models}; {memorized} memorized captions and {others} others of each."])


def _row(model: pl.DataFrame, score: str) -> dict[str, float]:
    """Of a score, with two seeds and one step."""
    rows = model.filter(score=score, seeds=2, steps=1)
    if rows.is_empty():
        raise SystemExit(f"docs/detection: no row of {score} with two seeds")
    return rows.row(0, named=True)


def _ratios(performance: str) -> tuple[str, str]:
    """Captions per second, to those of scripts: on the tests' model, by backend, and at Stable Diffusion 1.5's size."""
    small = [float(ratio) for ratio in re.findall(r"^\| bundle \w+ \|[^|]*\| ([\d.]+) \|", performance, re.MULTILINE)]
    full = re.findall(r"^\| sd-f32 \w+ \|.*\| ([\d.]+) \|[^|]*\|$", performance, re.MULTILINE)
    if not small or not full:
        raise SystemExit("docs/performance.md: no ratios of the tests' model, or none at full size")
    return f"{min(small):.0f} to {max(small):.0f}", f"{min(map(float, full)):.1f} to {max(map(float, full)):.1f}"


def sample(store: Path) -> str:
    """What `overscan report --top 3` prints of the demo's store."""
    night = decide(read_store(store), Rule(DEFAULT_SCORE, top=3), datetime.now(UTC).date())
    shown = io.StringIO()
    Console(file=shown, width=78).print(report_table(contents_of(night, {}, datetime.now(UTC))))
    return "\n".join(line.rstrip() for line in shown.getvalue().splitlines())


def between_marks(page: str, name: str, text: str) -> str:
    """The page with this text between the marks of that name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"no {begin} ... {end} in the page")
    return f"{before}{begin}\n{text}\n{end}{after}"


def first_steps(captions: Sequence[str], work: Path) -> Image.Image:
    """The picture of these captions, each under its score and label."""
    model = Model(BUNDLE, "cpu", batch_size=4)
    sampler, scorer = Sampler(model.denoiser, Sampling()), model.scorer()
    labels = dict(pl.read_parquet(LABELS).select("prompt", "label").iter_rows())
    rows = {}
    for caption in captions:
        (score,) = scorer(pl.DataFrame({"prompt_id": ["0"], "text": [caption]}))[DEFAULT_SCORE]
        said = "memorized" if labels[caption] else "not memorized"
        rows[f"“{caption}”: score {score:.2f}, {said}"] = tiles(caption, work, sampler)
    return picture(rows)


def main() -> None:
    """Write the picture and the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder of the training images; without it the picture stays")
    parser.add_argument("--store", type=Path, help="of a demo on the cpu backend; without it one is made")
    parser.add_argument("--copied", default="some hot dogs", metavar="CAPTION")
    parser.add_argument("--other", default="a christmas tree on dunes", metavar="CAPTION")
    asked = parser.parse_args()
    if asked.work is not None:
        first_steps((asked.copied, asked.other), asked.work).save(DOCS / "first-step.png", optimize=True)
    found = table(measured(), (DOCS / "performance.md").read_text(encoding="utf-8"))
    with TemporaryDirectory() as folder:
        if asked.store is None:
            scan(CAPTIONS, model=BUNDLE, store=folder, backend="cpu")
        printed = f"```text\n{sample(asked.store or Path(folder))}\n```"
    for path, name, text in (
        (README, "results", found),
        (README, "sample", printed),
        (DOCS / "detecting.md", "results", found),
    ):
        path.write_text(between_marks(path.read_text(encoding="utf-8"), name, text))


if __name__ == "__main__":
    main()
