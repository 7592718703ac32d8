"""How many noises a prior needs: the measurement, and the table that the documentation shows of it."""

from pathlib import Path

import numpy as np
import polars as pl
from small import BUNDLE

from scanner.config import ScanConfig
from scanner.model import Model
from tools.ground_truth import priors

ROOT = Path(__file__).parents[1]


def test_the_table_is_of_the_measurements():
    found = pl.read_csv(ROOT / priors.FILE)
    assert found.group_by("model", "told", "score", "noises").len()["len"].unique().to_list() == [priors.SETS]
    assert priors.table(found) in (ROOT / "docs/scores.md").read_text(encoding="utf-8")


def test_the_table_has_the_mean_over_sets_and_the_lowest():
    values = {8: (0.1, 0.2, 0.3, 0.4), 16: (0.2,) * 4, 32: (0.3,) * 4, 64: (0.4, 0.4, 0.4, 0.2)}
    rows = [
        {"model": "m", "told": "first", "score": "s", "noises": noises, "set": i, "mean": mean}
        for noises, means in values.items()
        for i, mean in enumerate(means)
    ]
    assert priors.table(pl.DataFrame(rows)).splitlines() == [
        "| model | told | score | 8 | 16 | 32 | 64 |",
        "|---|---|---|---|---|---|---|",
        "| m | first | `s` | .250 (.100) | .200 (.200) | .300 (.300) | .350 (.200) |",
    ]


def test_64_noises_of_the_first_set_are_the_prior_of_a_scan(monkeypatch, tmp_path):
    texts = [f"a {word}" for word in ("cat", "dog", "moon", "red car")]
    (tmp_path / "bundle-v").symlink_to(BUNDLE)
    labels = pl.DataFrame({"prompt": texts, "label": [True, True, False, False]})
    labels.write_parquet(tmp_path / "labels-v.parquet")
    seen = []

    def noted(values, labels):
        seen.append(values)
        return {"mean": float(values.sum())}

    monkeypatch.setattr(priors, "shares", noted)
    rows = list(priors.measured(tmp_path, "v"))
    assert len(rows) == len(seen) == 2 * 2 * len(priors.NOISES) * priors.SETS
    own = {
        told: Model(BUNDLE, "openvino", config=ScanConfig(timesteps=timesteps), batch_size=64).scorer()
        for told, timesteps in (("usual", None), ("first", ()))
    }
    scored = {told: scorer(pl.DataFrame({"prompt_id": texts, "text": texts})) for told, scorer in own.items()}
    for row, values in zip(rows, seen, strict=True):
        same = np.allclose(values, scored[row["told"]][row["score"]], rtol=1e-3)
        assert same == (row["noises"] == 64 and row["set"] == 0), row
        assert row["mean"] == round(float(values.sum()), 4)
