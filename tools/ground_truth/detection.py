"""Write docs/detecting.md and the tables in docs/detection: every score and every published detector on the models.

    python -m tools.ground_truth.detection NAME=WORK,KIND ...    # measure these, and write the page
    python -m tools.ground_truth.detection                       # the page alone, of the tables that are there

WORK, KIND: a work folder of `python -m tools.ground_truth` and v_prediction or epsilon. Our scores are of all labelled
captions, published detectors of the sample that `tools.ground_truth.realism` takes, timesteps of what
`tools.ground_truth.study` wrote into WORK/study-KIND. What is computed is kept in WORK.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from scanner.dataset import captions
from scanner.evidence import compared
from scanner.evidence.evaluate import evaluate, score, settings
from scanner.model import Model

from .realism import chosen

DOCS = Path(__file__).parents[2] / "docs"
TABLES = DOCS / "detection"
ORDINARY = Path(__file__).with_name("ordinary.txt")
MARK = "<!-- below: written by python -m tools.ground_truth.detection -->"
SHOWN = (  # of our scores: name, seeds; `_v2` where a model is told another timestep than the sampler's first
    ("text_noise_norm_v1", 1), ("low_noise_norm_v1", 1), ("low_noise_norm_v1", 2),
    ("overestimation_prior_v1", 1), ("overestimation_prior_v2", 1),
    ("overestimation_white_v1", 1), ("overestimation_white_v2", 1), ("estimate_ratio_prior_v1", 2),
    ("estimate_ratio_prior_v2", 2), ("estimate_ratio_white_v1", 2), ("estimate_ratio_white_v2", 2),
    ("estimate_ratio_prior_v1", 4), ("estimate_ratio_prior_v2", 4),
)  # fmt: skip
SEEDS = 4  # at most
TREATMENTS = {"left out": "left out", "negative": "counted as not memorized"}
FEATURES = {  # of a table of timesteps, one pass but for the last
    "norm": "norm {t}",
    "prior": "prior {t} distance identity .6",
    "prior, two seeds": "prior {t} ratio identity .6",
}


def measure(name: str, work: Path, kind: str) -> None:
    """Write a model's tables."""
    labels = pl.read_parquet(work / f"labels-{kind}.parquet").with_columns(cluster=pl.col("group").cast(pl.String))
    model = Model(
        work / f"bundle-{kind}", "openvino", "float32", reference=tuple(captions.reference(ORDINARY)), batch_size=64
    )
    asked = [setting for setting in settings() if setting.steps == 1 and setting.seeds <= SEEDS]
    scores = score(model, labels["prompt"].to_list(), _told, folder=work / f"detection-{kind}", asked=asked)
    some = chosen(labels).with_columns(pl.col("cluster").cast(pl.String))
    place = dict(zip(labels["prompt"], range(len(labels)), strict=True))
    rows = [place[prompt] for prompt in some["prompt"]]
    ours = {setting: values[rows] for setting, values in scores.items()}
    TABLES.mkdir(exist_ok=True)
    write(evaluate(scores, labels).detection, name, "scores")
    write(pl.read_parquet(work / f"study-{kind}/study.parquet"), name, "timesteps")
    plain = Model(work / f"bundle-{kind}", "openvino", "float32", batch_size=64)
    theirs = compared.measure(plain, some, _told, folder=work / f"realism-{kind}")
    write(compared.table(theirs, ours, some, model.settled, reference=False), name, "peers")


def _told(what: str, done: int, total: int) -> None:
    print(f"{what}: {done} of {total}", end="\r", file=sys.stderr)


def write(table: pl.DataFrame, name: str, what: str) -> None:
    """A model's table, numbers to four digits."""
    table.with_columns(pl.col(pl.Float64).round(4)).write_csv(TABLES / f"{name}-{what}.csv")


def page() -> str:
    """Markdown of the tables that are there."""
    names = sorted((path.name.removesuffix("-scores.csv") for path in TABLES.glob("*-scores.csv")), key=_order)
    found = {what: [_read(n, what) for n in names] for what in ("scores", "peers", "timesteps")}
    peers = [t.filter(collapsed="left out") for t in found["peers"]]  # run without the collapsed ones
    parts = []
    for collapsed, said in TREATMENTS.items():
        tables = [t.filter(collapsed=collapsed) for t in found["scores"]]
        counts = [f"{n}: {t['positives'][0]:,} / {t['negatives'][0]:,}" for n, t in zip(names, tables, strict=True)]
        parts += [
            f"## At each price, collapsed captions {said}",
            "AUROC; found at 1 % false alarms (95 % interval); at 0.1 %. Memorized captions / others: "
            f"{', '.join(counts)}.",
            _prices(names, tables, peers if collapsed == "left out" else [t.clear() for t in peers]),
        ]
    parts += [
        "## What the default has more than each published detector",
        "Found at 1 % false alarms, paired difference on the same captions (95 % interval), ours with one seed against "
        "detectors of one pass, with two against all others; in bold where the interval excludes 0.",
        _table(["detector", "passes", *names], _differences(peers)),
        "## What the model is told at the starting noise",
        "Found at 1 % false alarms, collapsed captions left out; counted as not memorized: by the norm of "
        "eps_c - eps_u, by the estimate's length in the prior's measure, by the ratio of two seeds in it. A sampler of "
        "50 steps tells 981 first. Of a sample that is harder than the lists above: all reworded, template and "
        "retrieval captions, those shown 6 times or more, and 1,500 others.",
        _table(["timestep", *(f"{n}, by {by}" for n in names for by in FEATURES)], _timesteps(found["timesteps"])),
    ]
    parts += [
        "## The rule",
        "The mean of four shares: found at 1 % and at 0.1 % false alarms, collapsed captions left out and counted as "
        "not memorized. Whole lists, OpenVINO in bfloat16, by `python -m tools.ground_truth.choice`; the highest of "
        "each number of seeds in bold.",
        _table(["told", "score", "seeds", *names, "mean"], _rule([_read(n, "choice") for n in names])),
    ]
    files = [(n, what, f"{n}-{what}.csv") for n in names for what in found]
    links = [f"[{n}, {what}](detection/{file})" for n, what, file in files if (TABLES / file).exists()]
    return "\n\n".join(
        [
            *parts,
            "## Whole tables",
            f"Every first-step score with 1, 2 and 4 seeds, treatment and interval: {', '.join(links)}.",
        ]
    )


def _rule(tables: Sequence[pl.DataFrame]) -> list[list[str]]:
    """A row for what was measured of all models, and its mean over them."""
    key = ["told", "score", "seeds"]
    whole = tables[0].select(*key, "mean").rename({"mean": "0"})
    for i, table in enumerate(tables[1:], 1):
        whole = whole.join(table.select(*key, pl.col("mean").alias(str(i))), on=key)
    whole = whole.with_columns(mean=pl.mean_horizontal(map(str, range(len(tables)))))
    whole = whole.with_columns(best=pl.col("mean") == pl.col("mean").max().over("seeds"))
    rows = []
    for row in whole.sort("seeds", "score", "told", descending=[False, False, True]).iter_rows(named=True):
        mean = f"**{_short(row['mean'])}**" if row["best"] else _short(row["mean"])
        each = [_short(row[str(i)]) for i in range(len(tables))]
        rows.append([str(row["told"]), f"`{row['score']}`", str(row["seeds"]), *each, mean])
    return rows


def _read(name: str, what: str) -> pl.DataFrame:
    """A model's table, or none of the rows of another's where it was not measured."""
    path = TABLES / f"{name}-{what}.csv"
    types = {"told": pl.String}
    found = pl.read_csv(path if path.exists() else min(TABLES.glob(f"*-{what}.csv")), schema_overrides=types)
    return found if path.exists() else found.clear()


def _order(name: str) -> tuple[bool, bool, str]:
    """The main models before those that confirm, v-prediction before epsilon."""
    return "confirmation" in name, "epsilon" in name, name


def _prices(names: Sequence[str], ours: Sequence[pl.DataFrame], theirs: Sequence[pl.DataFrame]) -> str:
    lines: list[tuple[int, list[str]]] = []
    for score_name, seeds in SHOWN:
        rows = [t.filter(score=score_name, seeds=seeds, steps=1) for t in ours]
        passes = next(row["passes"][0] for row in rows if len(row))
        lines.append((passes, [f"`{score_name}`", str(passes), *map(_rates, rows)]))
    for detector, passes in _detectors(theirs):
        lines.append((passes, [detector, str(passes), *(_rates(t.filter(detector=detector)) for t in theirs)]))
    return _table(
        ["score or detector", "passes", *names], [cells for _, cells in sorted(lines, key=lambda line: line[0])]
    )


def _rates(rows: pl.DataFrame) -> str:
    if rows.is_empty():
        return ""
    row = rows.row(0, named=True)
    within = f"{_short(row['tpr_at_0.01_low'])}-{_short(row['tpr_at_0.01_high'])}"
    return f"{_short(row['auroc'])}; {_short(row['tpr_at_0.01'])} ({within}); {_short(row['tpr_at_0.001'])}"


def _differences(theirs: Sequence[pl.DataFrame]) -> list[list[str]]:
    def cell(rows: pl.DataFrame) -> str:
        if rows.is_empty():
            return ""
        row = rows.row(0, named=True)
        value, low, high = (row[f"more_tpr_at_0.01{end}"] for end in ("", "_low", "_high"))
        text = f"{value:+.3f} ({low:+.2f} to {high:+.2f})"
        return f"**{text}**" if low > 0 or high < 0 else text

    return [
        [name, str(passes), *(cell(t.filter(detector=name)) for t in theirs)] for name, passes in _detectors(theirs)
    ]


def _detectors(theirs: Sequence[pl.DataFrame]) -> list[tuple[str, int]]:
    """Name and passes of those of the literature, the cheapest first; what the text alone tells costs none."""
    found = pl.concat([t.select("detector", "passes") for t in theirs]).filter(pl.col("passes") > 0)
    return found.unique(maintain_order=True).sort("passes", maintain_order=True).rows()


def _timesteps(tables: Sequence[pl.DataFrame]) -> list[list[str]]:
    names = pl.concat([table.select("score") for table in tables])["score"].unique()
    told = names.filter(names.str.contains(r"^norm \d+$")).str.slice(5).cast(pl.Int64)
    by: list[Callable[[int], str]] = [lambda t, form=form: form.format(t=t) for form in FEATURES.values()]

    def cells(table: pl.DataFrame, t: int) -> list[str]:
        each = [table.filter(score=name(t)) for name in by]
        rates = [{row["collapsed"]: row["tpr_at_0.01"] for row in rows.iter_rows(named=True)} for rows in each]
        return ["; ".join(_short(found[c]) for c in TREATMENTS if c in found) for found in rates]

    return [[str(t), *(cell for table in tables for cell in cells(table, t))] for t in told.sort(descending=True)]


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows])


def main() -> None:
    """Measure what is asked for, and write the page."""
    for asked in sys.argv[1:]:
        name, _, made = asked.partition("=")
        work, _, kind = made.partition(",")
        measure(name, Path(work), kind)
    path = DOCS / "detecting.md"
    introduction = path.read_text(encoding="utf-8").split(MARK)[0].strip()
    path.write_text(f"{introduction}\n\n{MARK}\n\n{page()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
