"""Write the tables of docs/images.md: what a caption's own image adds to the first step, on true training pairs.

    python -m tools.images NAME=BUNDLE,LABELS ...

LABELS as `tools.ground_truth` writes them, in the folder of its dataset. Two UNet passes per caption.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from scanner.diffusion.injection import discrepancy, injection
from scanner.diffusion.scores import DEFAULT_SCORE, SCORES
from scanner.diffusion.start import predict_prior, start
from scanner.diffusion.trace import Trace, trace
from scanner.evidence.decomposition import cosine, loss
from scanner.evidence.evaluate import COLLAPSED
from scanner.evidence.kept import keeping
from scanner.evidence.metrics import bootstrap, resample
from scanner.model import Model

from .pairs import Labelled, rewritten, told

ROOT = Path(__file__).parent.parent
PAGE, KEPT = ROOT / "docs/images.md", ROOT / "build/images"
SCORED = ("estimate_ratio_prior_v1", "overestimation_prior_v1", "text_noise_norm_v1")
CONTROL = ("injection_cosine_prior", "E_rel", "loss_hat")  # also measured with another caption's picture
GUIDANCE_SCALE, STEPS, SEEDS, FPR = 7.5, 50, (0, 1), 0.01
LOW = ("E_rel", "r_perp", "loss_cond", "cosine_x_0_hat")  # of memorized pairs
MARK = "<!-- Below: written by tools/images.py. -->"


def pairs(labelled: Labelled, others: int | None) -> pl.DataFrame:
    """Captions of one picture with a label: all memorized ones, and as many `others` as there are or are asked for."""
    known = labelled.prompts().filter(pl.col("role") == "fixed").drop_nulls("label")
    rest = known.filter(~pl.col("label"))
    rest = rest if others is None else rest.sample(min(others, len(rest)), seed=0)
    return pl.concat([known.filter("label"), rest])


def quantities(found: Trace, x: np.ndarray) -> dict[str, np.ndarray]:
    """[B] each of the first step, means over seeds, for a picture of each caption, latents [B, C, H, W]."""
    assert found.prior is not None
    mean, near, own = found.prior.mean, x[:, None], np.arange(len(x))
    plain, by_prior = (injection(found.hat.x0[0], x, mean, of) for of in (None, found.prior.covariance))
    off = discrepancy(found.text_estimate[0], near, mean)
    each = {
        "injection_cosine_prior": by_prior.cosine[own, :, own],
        "injection_prior": by_prior.coefficient[own, :, own],
        "injection_cosine": plain.cosine[own, :, own],
        "injection": plain.coefficient[own, :, own],
        "E_rel": off.E_rel,
        "r_perp": off.r_perp,
        "loss_cond": loss(found.cond.x0[0], near),
        "loss_hat": loss(found.hat.x0[0], near),
        "cosine_x_0_hat": cosine(found.hat.eps[0], near),
    }
    return {name: values.mean(1) for name, values in each.items()}


def measure(labelled: Labelled, labels: pl.DataFrame, model: Model) -> dict[str, np.ndarray]:
    """Values [n] of every quantity, of the scan's scores, and of quantities with another caption's picture."""
    denoiser, prompts = model.denoiser, labels["prompt"].to_list()
    shared = replace(start(denoiser, SEEDS, STEPS), prior=predict_prior(denoiser, STEPS))
    told_less = start(denoiser, SEEDS, STEPS, model.settled.told)
    own = labels["own"].to_numpy()
    place = {prompt: i for i, prompt in enumerate(prompts)}

    def each(part: Sequence[str]) -> dict[str, np.ndarray]:
        x = labelled.latents(denoiser, own[[place[prompt] for prompt in part]])
        conditioning = denoiser.encode(part)
        first = trace(denoiser, conditioning, shared, GUIDANCE_SCALE, STEPS, 1)
        usual = trace(denoiser, conditioning, told_less, GUIDANCE_SCALE, STEPS, 1)
        found = {f"`{name}`": values for name, values in quantities(first, x).items()}
        found[f"`{DEFAULT_SCORE}`, without an image"] = SCORES[DEFAULT_SCORE](usual)
        found |= {f"`{name}`, without an image": SCORES[name](first) for name in SCORED}
        others = quantities(first, np.roll(x, 1, axis=0))  # no picture belongs to two of these captions
        return found | {f"`{name}`, another's image": others[name] for name in CONTROL}

    names = list(each(prompts[:1]))
    made_of = [model.scan_id, names, own.tolist()]
    values = keeping(
        KEPT, "first steps", made_of, prompts, 256, lambda part: np.stack(list(each(part).values()), 1).astype(float),
        told, lambda: False,
    )  # fmt: skip
    return {name: values[:, i] for i, name in enumerate(names)}


def table(labels: pl.DataFrame, values: dict[str, np.ndarray]) -> Iterator[str]:
    """Lines: AUROC with its interval and TPR of every quantity, with medians."""
    heads, treated = [], {}
    for treatment, words in (("left out", "collapsed left out"), ("negative", "collapsed as not memorized")):
        label = labels.select(label=COLLAPSED[treatment])["label"]
        kept = label.is_not_null().to_numpy()
        treated[treatment] = kept, label.to_numpy()[kept].astype(bool)
        positives = int(treated[treatment][1].sum())
        heads.append(f"{words} ({positives:,} : {kept.sum() - positives:,})")
    yield f"| quantity | {' | '.join(heads)} | median, memorized; not |"
    yield "|---" * 4 + "|"
    for name, value in values.items():
        low = name.strip("`").partition("`")[0] in LOW
        cells = []
        for kept, label in treated.values():
            weights = resample(labels["group"].to_numpy()[kept])
            area, rate = bootstrap(-value[kept] if low else value[kept], label, weights, (FPR,))
            ends = "{:.3f} to {:.3f}".format(*area.interval())
            cells.append(f"{area.value:.3f} ({ends}) / {rate.value:.2f}")
        kept, label = treated["left out"]
        medians = "; ".join(f"{np.median(value[kept][label == kind]):.2f}" for kind in (True, False))
        yield f"| {name}{', low' if low else ''} | {' | '.join(cells)} | {medians} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Labelled.parse, metavar="NAME=BUNDLE,LABELS")
    parser.add_argument("--others", type=int, help="captions that are not memorized, by chance  [default: all]")
    parser.add_argument("--precision", default="auto", help="of OpenVINO")
    arguments = parser.parse_args()
    sections = []
    for labelled in arguments.models:
        labels = pairs(labelled, arguments.others)
        model = Model(labelled.bundle, "openvino", arguments.precision, batch_size=256)
        values = measure(labelled, labels, model)
        parts = [f"### {labelled.name}", f"OpenVINO in {model.bundle.precision}.", "\n".join(table(labels, values))]
        sections.append("\n\n".join(parts))
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), MARK, sections), encoding="utf-8")


if __name__ == "__main__":
    main()
