"""A new checkpoint on the same captions: calibrated and decided again, and compared without comparing scores."""

import json
import re

import polars as pl
import pytest
from small import BUNDLE
from test_cli import run

from scanner.audit import calibrate, kept
from scanner.audit.baseline import read_baseline

SCORE = "low_noise_norm_v1"
DATA = ["credit card on brown", "christmas tree", "male sign", *(f"caption number {i} of today" for i in range(17))]
NULL = [f"a plain sentence number {i}" for i in range(39)]


@pytest.fixture(scope="module")
def nights(tmp_path_factory, epsilon_bundle_path):
    """A night with one checkpoint, its findings accepted, and the same again with another."""
    folder = tmp_path_factory.mktemp("nights")
    (folder / "data.txt").write_text("\n".join(DATA))
    (folder / "null.txt").write_text("\n".join(NULL))
    made = ["--model", BUNDLE, "--store", folder / "store", "--backend", "cpu"]
    asked = ["--calibration", folder / "cal.parquet", "--fpr", "0.1", "--score", SCORE]
    for command in (
        ["scan", folder / "data.txt", *made],
        ["calibrate", folder / "null.txt", *made, "--out", folder / "cal.parquet"],
        ["report", "--store", folder / "store", "--out", folder / "first", *asked],
        ["accept", "--report", folder / "first", "--baseline", folder / "baseline.json", "--reason", "seen"],
    ):
        _, err, code = run(*command)
        assert code == 0, err
    again = ["--model", epsilon_bundle_path, "--store", folder / "store", "--baseline", folder / "baseline.json"]
    return folder, again, run("recheck", "--report", folder / "first", *again, "--out", folder / "second")


def test_recheck_calibrates_decides_and_compares(nights):
    folder, _, (out, err, code) = nights
    assert code == 0, err
    before, after = (json.loads((folder / name / "summary.json").read_text()) for name in ("first", "second"))
    assert before["scan_id"] != after["scan_id"]
    assert (after["rule"], after["score"], after["prompts"]) == ({"fpr": 0.1}, SCORE, 20)
    assert (after["calibration"]["n"], after["scan"]["config"]) == (39, before["scan"]["config"])
    assert calibrate.read(folder / "second/calibration.parquet", SCORE).scan_id == after["scan_id"]
    assert out.splitlines()[0] == "change\tprompt_id\trank_before\trank_after\tp_before\tp_after\tsources\ttext"
    assert not [line for line in out.splitlines() if line.startswith("moved")]
    assert re.search(r", 0 moved\n", err)


def test_what_was_accepted_stays_known(nights):
    folder, _, (_, err, _) = nights
    accepted = read_baseline(folder / "baseline.json")
    assert {entry.reason for entry in accepted.accepted.values()} == {"seen"}
    found = pl.read_parquet(folder / "second/scores.parquet").filter("flagged")
    known = found.filter(finding="known")["prompt_id"].to_list()
    assert sorted(known) == sorted(set(found["prompt_id"]) & set(accepted.prompt_ids))
    assert known
    assert f"note: {len(known):,} known findings were accepted under another model, setting or score\n" in err


def test_the_drift_between_checkpoints_is_told_by_rank(nights):
    folder, _, (_, err, _) = nights
    before, after = (pl.read_parquet(folder / name / "scores.parquet") for name in ("first", "second"))
    both = before.join(after, on="prompt_id", suffix="_after")
    correlation = both.select(pl.corr("rank", "rank_after", method="spearman")).item()
    flagged = both.filter("flagged")
    assert (
        "note: the nights are of different models or settings, whose scores do not compare by value: prompts are "
        "compared by rank and p-value, and none is said to have moved\n"
        f"note: drift between them: over 20 prompts of both nights the ranks correlate {correlation:.3f} (Spearman); "
        f"{flagged['flagged_after'].sum()} of the {len(flagged)} that were flagged are flagged again\n"
    ) in err
    assert -1 < correlation < 0.999


def test_diff_of_the_two_reports_says_the_same(nights):
    folder, _, (out, _, _) = nights
    assert run("diff", "--from", folder / "first", "--to", folder / "second")[0] == out


def test_a_kept_threshold_is_chosen_again_as_it_was(nights):
    folder, again, _ = nights
    store = ["--store", folder / "store"]
    first = json.loads((folder / "first/summary.json").read_text())["scan_id"]
    chosen = ["threshold", *store, "--scan-id", first, "--score", SCORE, "--out", folder / "t.json"]
    assert run(*chosen, "--quantile", "0.9")[2] == 0
    third = folder / "third"
    asked = ["report", *store, "--scan-id", first, "--out", third, "--threshold", folder / "t.json"]
    assert run(*asked)[2] == 0
    _, err, code = run("recheck", "--report", third, *again, "--out", folder / "fourth")
    assert code == 0, err
    former, carried = kept.read(folder / "t.json"), kept.read(folder / "fourth/threshold.json")
    assert (carried.quantile, carried.score, carried.prompts) == (0.9, SCORE, 20)
    assert carried.scan_id != former.scan_id
    counts = [json.loads((folder / name / "summary.json").read_text())["flagged"] for name in ("third", "fourth")]
    assert counts == [2, 2]
    _, err, code = run("report", *store, "--out", folder / "fifth", "--threshold", folder / "t.json")
    assert (code, err) == (
        2,
        f"error: the threshold is of scan_id {former.scan_id}, the scan has {carried.scan_id}: scores of other models "
        "or settings do not compare; choose one with `overscan threshold`, or see `overscan recheck`\n",
    )


def test_a_policy_holds_for_a_checkpoint_too(nights):
    folder, again, _ = nights
    asked = ["recheck", "--report", folder / "first", *again[:4], "--out", folder / "sixth", "--fail-on", "1"]
    _, err, code = run(*asked)
    flagged = json.loads((folder / "sixth/summary.json").read_text())["flagged"]
    assert (code, err.splitlines()[-1]) == (1, f"policy violated: {flagged} new findings, --fail-on 1")


def test_benign_captions_that_nobody_knows_are_asked_for(nights, tmp_path, epsilon_bundle_path):
    folder, _, _ = nights
    made = ["--model", BUNDLE, "--store", tmp_path / "store", "--backend", "cpu"]
    assert run("scan", folder / "data.txt", *made)[2] == 0
    asked = [
        "recheck",
        "--report",
        folder / "first",
        "--model",
        epsilon_bundle_path,
        *made[2:4],
        "--out",
        tmp_path / "r",
    ]
    _, err, code = run(*asked)
    assert (code, err) == (
        2,
        "error: the report decides by null captions, and the store does not know which: name them with --null, as they "
        "were given to `overscan calibrate`\n",
    )
    _, err, code = run(*asked, "--null", folder / "null.txt")
    assert code == 0, err
    assert json.loads((tmp_path / "r/summary.json").read_text())["calibration"]["n"] == 39


def test_status_says_what_a_new_checkpoint_makes_stale(nights, tmp_path, monkeypatch):
    folder, _, _ = nights
    store, first = ["--store", folder / "store"], json.loads((folder / "first/summary.json").read_text())["scan_id"]
    newest = json.loads((folder / "second/summary.json").read_text())["scan_id"]
    asked = ["threshold", *store, "--scan-id", first, "--score", SCORE, "--out", tmp_path / "t.json"]
    assert run(*asked, "--quantile", "0.9")[2] == 0
    cal, mine, base, none = (
        folder / "cal.parquet",
        folder / "second/calibration.parquet",
        folder / "baseline.json",
        "none",
    )
    files = ["--calibration", cal, "--threshold", tmp_path / "t.json", "--baseline", base]
    out, _, code = run("status", *store, *files)
    assert code == 0
    assert out.endswith(
        "\n\n"
        f"calibration {cal}: stale, of scan {first[:8]}: a report refuses it: `overscan calibrate` with the scan's "
        "settings, or `recheck`\n"
        f"threshold {tmp_path / 't.json'}: stale, of scan {first[:8]}: a report refuses it: `overscan threshold`, or "
        "`overscan recheck`\n"
        f"baseline {base}: stale, of scan {first[:8]}: its findings stay known, and a report says that they were "
        "accepted under another scan\n"
    )
    out, _, _ = run("status", *store, "--calibration", mine, "--baseline", none)
    assert out.endswith(f"\n\ncalibration {mine}: of the newest scan, {newest[:8]}\nbaseline none: not there\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "overscan.toml").write_text(f'[report]\nthreshold = "t.json"\ncalibration = "{cal}"\n')
    found = json.loads(run("status", *store, "--json")[0])
    assert found["newest"] == found["calibrates"] == newest
    assert [(file["what"], file["of"], file["holds"]) for file in found["files"]] == [
        ("calibration", first, False),
        ("threshold", first, False),
    ]


def test_status_says_which_scan_was_never_calibrated(nights, tmp_path):
    folder, _, _ = nights
    made = ["--model", BUNDLE, "--store", tmp_path / "store", "--backend", "cpu"]
    assert run("calibrate", folder / "null.txt", *made, "--out", tmp_path / "cal.parquet")[2] == 0
    assert "null captions" not in run("status", *made[2:4])[0]
    assert run("scan", folder / "data.txt", *made)[2] == 0
    assert "null captions" not in run("status", *made[2:4])[0]
    first = json.loads(run("status", *made[2:4], "--json")[0])["newest"]
    assert run("scan", folder / "data.txt", *made, "--seeds", "1")[2] == 0
    newest = json.loads(run("status", *made[2:4], "--json")[0])["newest"]
    assert run("status", *made[2:4])[0].endswith(
        f"\nnull captions were scored for {first[:8]}, and not for the newest scan, {newest[:8]}: a calibration of "
        "those is refused; calibrate again, or see `overscan recheck`\n"
    )


def test_the_former_report_stays(nights):
    folder, again, _ = nights
    _, err, code = run("recheck", "--report", folder / "first", *again, "--out", folder / "first")
    assert (code, err) == (
        2, f"error: {folder}/first: the former report, which stays to compare with: name another --out\n",
    )  # fmt: skip


def test_a_scan_is_done_again_in_its_dialect(tmp_path, epsilon_bundle_path):
    (tmp_path / "a.csv").write_text('caption,u\n"a cat",1\n"a dog, a bird",2\n')
    made = ["--model", BUNDLE, "--store", tmp_path / "store", "--backend", "cpu", "--dialect", "quotechar=none"]
    assert run("scan", tmp_path / "a.csv", *made)[2] == 0
    assert run("report", *made[2:4], "--out", tmp_path / "first", "--top", "1")[2] == 0
    asked = ["recheck", "--report", tmp_path / "first", "--model", epsilon_bundle_path, *made[2:4]]
    assert run(*asked, "--out", tmp_path / "second")[2] == 0
    texts = [pl.read_parquet(tmp_path / name / "scores.parquet")["text"].to_list() for name in ("first", "second")]
    assert texts == [['"a cat"', None]] * 2


def night(folder, model, name, *scan):
    """A screened scan of a file of captions with its own threshold, and its report by a calibration."""
    made = ["--model", model, "--store", folder / "store", "--backend", "cpu", "--seeds", "4", "--timesteps", "first"]
    cal = folder / f"{name}.parquet"
    for command in (
        ["scan", *scan, *made, "--screen", "0.4"],
        ["calibrate", folder / "null.txt", *made, "--out", cal],
        ["report", "--store", folder / "store", "--out", folder / name, "--calibration", cal, "--fpr", "0.2"],
    ):
        _, err, code = run(*command)
        assert code == 0, err


def test_a_screened_scan_is_screened_again(tmp_path, epsilon_bundle_path):
    """As it would be by hand; and earlier inputs that are gone are said, those of the newest run an error."""
    lists = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path, part in zip(lists, (DATA[:10], DATA), strict=True):
        path.write_text("\n".join(part))
    (tmp_path / "null.txt").write_text("\n".join(NULL))
    night(tmp_path, BUNDLE, "first", lists[1])
    asked = ["recheck", "--report", tmp_path / "first", "--model", epsilon_bundle_path, "--store", tmp_path / "store"]
    _, err, code = run(*asked, "--out", tmp_path / "second")
    assert code == 0, err
    night(tmp_path, epsilon_bundle_path, "by hand", lists[1])
    second, by_hand = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("second", "by hand"))
    assert second["scan_id"] == by_hand["scan_id"] != second["full_scan_id"] == by_hand["full_scan_id"]
    found = [pl.read_parquet(tmp_path / name / "scores.parquet").sort("prompt_id") for name in ("second", "by hand")]
    assert found[0].equals(found[1])
    assert found[0]["estimate_ratio_prior_v1"].count() == 8  # 40 % of 20
    _, err, code = run(*asked, "--out", tmp_path / "third", "--screen-model", epsilon_bundle_path)
    assert (code, err) == (
        2, "error: --screen-model: the former scan's first pass was its own model's: leave it out\n",
    )  # fmt: skip
    night(tmp_path, BUNDLE, "former", lists[0])
    lists[1].unlink()
    asked[2] = tmp_path / "former"
    _, err, code = run(*asked, "--out", tmp_path / "fourth")
    assert code == 0, err
    assert f"note: captions of an earlier run are left out: {lists[1]}: no such file" in err
    assert json.loads((tmp_path / "fourth/summary.json").read_text())["prompts"] == 10
    lists[0].unlink()
    _, err, code = run(*asked, "--out", tmp_path / "fifth")
    assert (code, err.splitlines()[-1].startswith(f"error: {lists[0]}: no such file")) == (2, True), err


def test_another_models_first_pass_needs_its_counterpart(tmp_path, epsilon_bundle_path):
    (tmp_path / "a.txt").write_text("\n".join(DATA))
    made = ["--model", epsilon_bundle_path, "--store", tmp_path / "store", "--backend", "cpu", "--seeds", "4"]
    made += ["--timesteps", "first"]
    assert run("scan", tmp_path / "a.txt", *made, "--screen", "0.4", "--screen-model", BUNDLE)[2] == 0
    assert run("report", "--store", tmp_path / "store", "--out", tmp_path / "first", "--top", "3")[2] == 0
    asked = ["recheck", "--report", tmp_path / "first", "--model", BUNDLE, "--store", tmp_path / "store"]
    _, err, code = run(*asked, "--out", tmp_path / "second")
    assert (code, err) == (
        2,
        f"error: the report is of a scan screened by another model, {BUNDLE}: make the same of the new checkpoint "
        "(such as an int8 bundle, `overscan export --dtype int8`) and name it with --screen-model\n",
    )
    _, err, code = run(*asked, "--out", tmp_path / "second", "--screen-model", epsilon_bundle_path)
    assert code == 0, err
    summary = json.loads((tmp_path / "second/summary.json").read_text())
    assert (summary["flagged"], summary["prompts"]) == (3, 20)
    assert pl.read_parquet(tmp_path / "second/scores.parquet")["estimate_ratio_prior_v1"].count() == 8
