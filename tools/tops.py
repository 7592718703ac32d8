"""What precision does to the top and to the floor of a ranking of many unlabelled captions.

    python tools/tops.py INPUT BUNDLE [INT8_BUNDLE]

Kept: share of the top that float32 and the other way have in common, both in OpenVINO; beside it, two other seeds in
float32. Floor: the median of a score over float32's, over the lowest 1 % by float32.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from compare import overlap

from scanner import ScanConfig, scan

SCORES = ("low_noise_norm_v1", "overestimation_prior_v2", "estimate_ratio_prior_v2")  # of what a model is usually told
TOPS = (0.01, 0.001)
FLOOR = 0.01


def scores(source: Path, model: Path, precision: str, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """[N] of each score, in the order of the prompts' ids."""
    with tempfile.TemporaryDirectory() as folder:
        result = scan(source, model=model, store=Path(folder) / "store", backend="openvino", precision=precision,
                      config=ScanConfig(seeds=seeds))  # fmt: skip
        frame = result.scores.filter(status="scored").sort("prompt_id")
    return {name: frame[name].to_numpy().astype(np.float64) for name in SCORES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("int8", type=Path, nargs="?")
    given = parser.parse_args()
    expected = scores(given.input, given.bundle, "float32", (0, 1))
    others = {
        "float32, other seeds": scores(given.input, given.bundle, "float32", (2, 3)),
        "bfloat16": scores(given.input, given.bundle, "bfloat16", (0, 1)),
    }
    if given.int8:
        others["int8"] = scores(given.input, given.int8, "auto", (0, 1))
    print(f"{len(expected[SCORES[0]]):,} captions\n")
    print("| score | way | " + " | ".join(f"top {share:.1%} kept" for share in TOPS) + " | floor | all |")
    print("|---" * (len(TOPS) + 4) + "|")
    for name in SCORES:
        a = expected[name]
        low = np.argsort(a)[: round(FLOOR * len(a))]
        for way, found in others.items():
            cells = [f"{overlap(a, found[name], share):.2f}" for share in TOPS]
            cells += [f"{np.median(found[name][part] / a[part]):.3f}" for part in (low, slice(None))]
            print(f"| `{name}` | {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
