"""Write what `overscan demo` scans, from the work folder of a finished v-prediction model:

    python -m tools.ground_truth.demo build/ground-truth scanner/demo

`bundle/`; `captions.parquet`: each labelled caption as often as the ladder shows it in an epoch, those that are never
shown once, in an order by chance; `labels.parquet`: what generation says about each, as `overscan evaluate` reads it;
`reference.txt`: captions of the pool, whose drawings and captions the diffusion model was never shown.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import polars as pl

KIND = "v_prediction"
LARGEST = 40_000_000  # bytes of the bundle, which every clone and wheel carries
SEED = 2509
REFERENCE = 500  # captions
COLUMNS = (
    "prompt", "role", "duplicates", "cluster", "copied_seeds", "similarity", "cross_seed_similarity", "image", "label",
    "collapsed",
)  # fmt: skip


def captions(labels: pl.DataFrame) -> pl.DataFrame:
    """[caption]: the rows of an epoch, and a row of each caption that is never shown."""
    rows = labels["prompt"].to_numpy().repeat(labels["duplicates"].clip(1))
    return pl.DataFrame({"caption": np.random.default_rng(SEED).permutation(rows)}, schema={"caption": pl.String})


def reference(pool: list[str], labelled: list[str]) -> list[str]:
    """Ordinary captions by chance, none of the labelled ones in whatever case. Raises SystemExit where too few are."""
    taken = {text.lower() for text in labelled}
    ordinary = [text for text in np.random.default_rng(SEED).permutation(pool).tolist() if text.lower() not in taken]
    if len(ordinary) < REFERENCE:
        raise SystemExit(f"{len(ordinary)} captions of the pool are none of the labelled ones, {REFERENCE} are needed")
    return ordinary[:REFERENCE]


def write(work: Path, out: Path) -> None:
    """All four into `out`. Raises SystemExit where the bundle is larger than what a clone should carry."""
    bundle = work / f"bundle-{KIND}"
    if (size := sum(file.stat().st_size for file in bundle.iterdir())) > LARGEST:
        raise SystemExit(f"{bundle}: {size:,} bytes, at most {LARGEST:,} go into the demo: export a smaller model")
    labels = pl.read_parquet(work / f"labels-{KIND}.parquet").with_columns(cluster="group").select(COLUMNS)
    ordinary = reference(np.load(work / "pool.npz")["texts"].tolist(), labels["prompt"].to_list())
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "bundle", ignore_errors=True)
    shutil.copytree(bundle, out / "bundle")
    captions(labels).write_parquet(out / "captions.parquet")
    labels.write_parquet(out / "labels.parquet")
    (out / "reference.txt").write_text("\n".join(ordinary) + "\n", encoding="utf-8")
    print(f"bundle of {size:,} bytes, {len(labels):,} labelled captions, {len(ordinary)} ordinary ones")


def main() -> None:
    """Write the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="the work folder of `python -m tools.ground_truth`")
    parser.add_argument("out", type=Path, help="scanner/demo")
    asked = parser.parse_args()
    write(asked.work, asked.out)


if __name__ == "__main__":
    main()
