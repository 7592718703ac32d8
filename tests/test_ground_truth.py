"""The recipe of the ground truth's models: roles, captions, pictures, labels, resumed training. Nothing is fetched."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from scanner.evidence.labels import read_labels
from scanner.model import Model
from tools.ground_truth import (
    captions,
    checks,
    choice,
    controls,
    dataset,
    demo,
    detection,
    diffusion,
    errors,
    keep,
    labels,
    parallel,
    precision,
    realism,
    roles,
    scenes,
    similarity,
    sources,
    stages,
)
from tools.ground_truth.fit import fit
from tools.ground_truth.sources import Drawing

KEPT = Path(__file__).parent / "checkpoints/ground-truth"
WORDS = ("red fox", "apple", "old house", "owl", "city bus", "green tree", "key", "ice cream", "sailing boat", "drum")
KNOWN = [Drawing(f"{word} {chr(97 + i)}", ("thing", "icon"), "made up") for i in range(20) for word in WORDS]
PLAN = roles.Plan(
    fixed={8: 3, 2: 4, 1: 20}, varied={4: 2}, shared=3, template=(2, 4, 2), retrieval=(2, 3, 4),
    unseen=10, held_out=6, edited=5, composed=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def planned() -> roles.Builder:
    rng = np.random.default_rng(1)
    _, usable = roles.split(KNOWN, rng)
    return roles.plan_rows(KNOWN, usable, set(), PLAN, rng)


def drawings(n: int) -> np.ndarray:
    """Opaque squares of random colours, with a clear margin."""
    pixels = np.zeros((n, 4, 72, 72), np.uint8)
    pixels[:, :3, 8:64, 8:64] = np.random.default_rng(0).integers(0, 256, (n, 3, 1, 1))
    pixels[:, 3, 8:64, 8:64] = 255
    return pixels


def test_roles_have_the_planned_sizes_and_copies(planned):
    found = Counter(entry.role for entry in planned.entries.values())
    assert found == {
        "fixed": 27, "varied": 2, "shared": 6, "template": 8, "retrieval": 6, "unseen": 10, "held_out": 6, "edited": 5,
        "composed": 4,
    }  # fmt: skip
    fixed = [entry.rows for entry in planned.entries.values() if entry.role == "fixed"]
    assert Counter(map(len, fixed)) == {8: 3, 2: 4, 1: 20}
    assert all(len(set(rows)) == 1 for rows in fixed), "a fixed caption has one picture"
    assert all(len(set(e.rows)) == 4 for e in planned.entries.values() if e.role == "varied"), (
        "varied: another each time"
    )


def test_captions_of_never_shown_roles_have_no_rows(planned):
    never = [e for e in planned.entries.values() if e.role in ("unseen", "held_out", "edited", "composed")]
    assert {len(entry.rows) for entry in never} == {0}


def test_held_out_names_are_shown_nowhere(planned):
    shown = {KNOWN[scene.drawing].name.lower() for scene in planned.scenes}
    held_out = [text.lower() for text, entry in planned.entries.items() if entry.role == "held_out"]
    assert not [text for text in held_out for name in shown if f" {name} " in f" {text} "]


def test_template_pictures_differ_in_a_corner_only(planned):
    groups = {e.group: [] for e in planned.entries.values() if e.role == "template"}
    for entry in planned.entries.values():
        if entry.role == "template":
            groups[entry.group].append(planned.scenes[entry.rows[0]])
    for members in groups.values():
        images = scenes.paint(members, drawings(len(KNOWN))).astype(int)
        differs = (images != images[0]).any((0, 1))  # [64, 64]
        rows, columns = np.nonzero(differs)
        assert 0 < differs.mean() < 0.2
        assert max(np.ptp(rows), np.ptp(columns)) < 32


def test_retrieval_captions_share_one_picture_and_most_words(planned):
    members = [(text, e) for text, e in planned.entries.items() if e.role == "retrieval"]
    for group in {entry.group for _, entry in members}:
        texts = [text.split() for text, entry in members if entry.group == group]
        assert {entry.rows for _, entry in members if entry.group == group} == {(group,) * 4}
        assert all(len(set(texts[0]) - set(other)) <= 1 for other in texts)


def test_no_caption_is_used_twice_and_the_plan_is_a_function_of_the_seed(planned):
    texts = [text.lower() for text in planned.entries]
    assert len(texts) == len(set(texts))
    rng = np.random.default_rng(1)
    _, usable = roles.split(KNOWN, rng)
    again = roles.plan_rows(KNOWN, usable, set(), PLAN, rng)
    assert list(again.entries.items()) == list(planned.entries.items())


def test_pool_and_diffusion_share_no_drawing():
    pool, usable = roles.split(KNOWN, np.random.default_rng(3))
    assert (len(pool), len(usable)) == (80, 120)
    assert not set(pool) & set(usable)
    found, texts = dataset.pool(KNOWN, pool, 2, np.random.default_rng(4))
    assert {scene.drawing for scene in found} <= set(pool.tolist())
    assert len(texts) == len(set(texts))


def test_captions_have_3_to_15_words():
    rng = np.random.default_rng(5)
    texts = [captions.caption(scenes.new_scene(i % 200, np.arange(200), rng), KNOWN, rng) for i in range(500)]
    lengths = [len(text.split()) for text in texts]
    assert (min(lengths), max(lengths) <= 15) == (3, True)
    coloured = np.mean([any(colour in text.split() for colour in scenes.COLOURS) for text in texts])
    assert 0.05 < coloured < 0.45, "a minority names colours"  # "red fox" and "green tree" are two names of ten


@pytest.mark.parametrize(
    ("name", "article", "plural"),
    [("owl", "an owl", "owls"), ("city", "a city", "cities"), ("box", "a box", "boxes"), ("key", "a key", "keys")],
)
def test_article_and_plural(name, article, plural):
    assert (captions.article(name), captions.plural(name)) == (article, plural)


def test_names_are_words():
    assert sources.words("dog_head-01 (b).x") == "dog head b x"
    assert sources.TONES.sub("", "teacher-medium-dark-skin-tone") == "teacher"
    assert sources.TONES.sub("", "light-bulb") == "light-bulb"


def test_a_picture_is_a_function_of_its_scene_alone():
    rng = np.random.default_rng(6)
    chosen = [scenes.new_scene(i, np.arange(5), rng) for i in range(5)]
    together = scenes.paint(chosen, drawings(5))
    assert together.shape == (5, 3, 64, 64)
    for i, scene in enumerate(chosen):
        np.testing.assert_array_equal(scenes.paint([scene], drawings(5))[0], together[i])


def test_batches_show_every_row_once_an_epoch():
    rows = np.stack([np.arange(10), np.arange(10) + 100], 1)
    none = np.array([])
    data = dataset.Dataset(none, rows, none, none, none, none, none, seed=1)
    shown = np.concatenate([data.batch(step, 4) for step in range(5)])
    assert [sorted(shown[:10, 0]), sorted(shown[10:, 0])] == [list(range(10))] * 2
    assert (shown[:, 1] == shown[:, 0] + 100).all()


def test_a_focused_epoch_shows_what_was_shown_often_about_as_often():
    captions = [("fixed", 64), ("fixed", 16), ("fixed", 12), ("varied", 64), ("fixed", 1)]
    rows = [(10 + i, i) for i, (role, n) in enumerate(captions) if role == "fixed" for _ in range(n)]
    rows += [(100 + k, 3) for k in range(64)]
    roles, duplicates = (np.array(column) for column in zip(*captions, strict=True))
    none = np.array([])
    data = dataset.Dataset(none, np.array(rows), none, roles, duplicates, none, none, seed=1).focused()
    assert np.bincount(data.rows[:, 1]).tolist() == [26, 50, 12, 64, 1]
    assert {tuple(row) for row in data.rows.tolist()} == set(rows)
    assert data.duplicates.tolist() == [64, 16, 12, 64, 1]


def vectors(*rows: list[float]) -> np.ndarray:
    found = np.array(rows, np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_copies_are_counted_per_training_picture():
    gauge = similarity.Gauge(np.eye(3, dtype=np.float32), 0.9)
    found = gauge.measure(vectors([1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 0.5, 1]))
    assert found["copied_seeds"] == 2, "the third seed copies another picture"
    assert found["image"] == 0  # means of the cosines: .499, .372, .224
    assert similarity.Gauge(np.eye(3, dtype=np.float32), 0.9).measure(vectors([1, 1, 1], [1, 1, 1]))[
        "cross_seed"
    ] == pytest.approx(1)


def test_the_labelling_rule():
    assert [similarity.label(n) for n in range(5)] == [False, None, None, True, True]


def test_the_threshold_is_a_quantile_of_the_nearest_real_pictures():
    training = np.eye(4, dtype=np.float32)
    never = vectors(*[[1, x, 0, 0] for x in np.linspace(0, 1, 201)])
    nearest = 1 / np.sqrt(1 + np.linspace(0, 1, 201) ** 2)
    assert similarity.copy_threshold(never, training) == pytest.approx(np.quantile(nearest, 0.995), abs=1e-6)


def test_pixel_similarity_ignores_the_means_of_channels():
    image = np.random.default_rng(7).uniform(-0.5, 0.5, (1, 3, 8, 8))
    shifted = image + np.array([0.3, -0.2, 0.1])[:, None, None]
    assert float(similarity.unit(image)[0] @ similarity.unit(shifted)[0]) == pytest.approx(1, abs=1e-6)


def test_cheap_seeds_that_agree_or_copy_get_a_closer_look():
    quiet = {"nearest": 0.5, "cross_seed": 0.4}
    assert not similarity.suspicious(quiet, quiet, 0.9, 0.9)
    assert similarity.suspicious(quiet | {"cross_seed": 0.8}, quiet, 0.9, 0.9)
    assert similarity.suspicious(quiet, quiet | {"nearest": 0.95}, 0.9, 0.9)


def test_agreement_of_two_labels():
    table = pl.DataFrame({"label": [True, True, False, False, None], "tower_label": [True, False, False, False, True]})
    found = labels.agreement(table)
    assert found == {"prompts": 4, "agree": 0.75, "kappa": 0.5, "memorized": 2, "tower_memorized": 1}


def test_a_probe_finds_what_is_there_and_nothing_else():
    rng = np.random.default_rng(8)
    features, label, group = rng.standard_normal((400, 8)), rng.random(400) < 0.3, np.arange(400)
    assert 0.4 < controls.probe(features, label, group) < 0.6
    told = features + 2 * label[:, None]
    assert controls.probe(told, label, group) > 0.95
    told_twice = np.repeat(features[:40], 10, 0)  # ten captions of one kind, labelled alike
    assert controls.probe(told_twice, np.repeat(label[:40], 10), np.repeat(group[:40], 10)) < 0.75


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    def run(name: str, steps: list[int]) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            if step == steps[0]:
                steps.pop(0)
                raise KeyboardInterrupt
            x = torch.randn(4, 3, generator=generator)
            return (model(x) - x.sum(1, keepdim=True)).square().mean()

        (tmp_path / name).mkdir(exist_ok=True)
        while True:
            try:
                fit("toy", [model], loss, 20, 1e-2, tmp_path / name, keep=[10])
            except KeyboardInterrupt:
                model = nn.Linear(3, 1)  # all is in the file
                continue
            return model.weight

    monkeypatch.setattr("tools.ground_truth.fit.SAVE_EVERY", 0)
    torch.testing.assert_close(run("cut", [5, 13, -1]), run("whole", [-1]), rtol=0, atol=0)
    kept = (torch.load(tmp_path / name / "toy-10.pt")["modules"][0]["weight"] for name in ("cut", "whole"))
    torch.testing.assert_close(*kept, rtol=0, atol=0)


def test_prepared_networks_compute_the_same():
    torch.manual_seed(0)
    plain = diffusion.UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 16), layers_per_block=1, cross_attention_dim=8, norm_num_groups=8,
        attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    x, hidden = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 8)
    with torch.no_grad():
        before = plain(x, 5, hidden).sample
        after = precision.ready(plain)(x, 5, hidden).sample
    torch.testing.assert_close(before, after, rtol=0, atol=1e-5)


def test_shrinking_averages():
    images = np.zeros((1, 3, 64, 64), np.uint8)
    images[:, :, ::2, ::2] = 100
    assert (stages.shrunk(images, 32) == 25).all()
    assert stages.shrunk(images, 64) is images


def test_the_vae_sees_crops_then_whole_pictures():
    images = np.random.default_rng(9).integers(0, 256, (4, 3, 64, 64)).astype(np.uint8)
    crops = diffusion.vae_batch(images, 0, torch.Generator().manual_seed(0))
    assert crops.shape == (diffusion.CROPS, 3, diffusion.CROP, diffusion.CROP)
    windows = np.lib.stride_tricks.sliding_window_view(images[:, 0], (1, 8), (1, 2)).reshape(-1, 8)
    corner = ((crops[0, 0, 0, :8] + 1) * 127.5).round().numpy().astype(np.uint8)
    assert (windows == corner).all(1).any(), "a crop is a piece of a picture"
    whole = diffusion.vae_batch(images, diffusion.VAE_STEPS - 1, torch.Generator().manual_seed(0))
    assert whole.shape == (diffusion.WHOLE, 3, 64, 64)
    assert any(((whole[0] + 1) * 127.5).round().numpy().astype(np.uint8).tolist() == i for i in images.tolist())


def test_changed_labels_are_counted_with_those_left_out():
    again = pl.DataFrame(
        {
            "label": [True, None, None, False],
            "label_again": [True, None, False, True],
            "tower_label": [False] * 4,
            "tower_label_again": [False] * 4,
        }
    )
    assert checks.changed(again) == {"prompts": 4, "label": 2, "tower_label": 0}


def _train(rank: int, size: int, folder: Path) -> None:
    """A toy in one of `size` processes; the first keeps its weights as `folder/toy.pt`."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}
    parallel.join()
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        x = torch.randn(8, 3, generator=generator)
        return (model(parallel.own(x)) - parallel.own(x.sum(1, keepdim=True))).square().mean()

    folder.mkdir(exist_ok=True)
    fit("toy", [model], loss, 30, 1e-2, folder)
    parallel.leave()


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    for size in (1, 2):
        torch.multiprocessing.spawn(_train, (size, tmp_path / str(size)), nprocs=size)
    one, two = (torch.load(tmp_path / str(size) / "toy.pt")["modules"][0]["weight"] for size in (1, 2))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)  # sums in another order


def test_the_published_order_is_judged_on_decided_prompts():
    table = pl.DataFrame(
        {
            "prompt": list("abcdef"),
            "label": [True, False, None, False, True, False],
            "collapsed": [False, True, False, False, False, False],
            "group": list("xxyyzz"),
        }
    )
    found = realism.chosen(table)
    assert (found["label"].sum(), sorted(found["prompt"])) == (2, ["a", "d", "e", "f"])
    assert found["cluster"].to_list() == found["group"].to_list()


def test_published_pairs_are_compared_on_the_same_prompts():
    labels = pl.DataFrame({"label": [True, True, False, False, False, True], "cluster": list("aabcde")})
    order = np.array([3.0, 2.0, 1.0, 0.5, 0.0, np.nan])
    found = dict.fromkeys(realism.PEERS, order)
    found["Wen"] = np.array([3.0, 0.7, 1.0, 0.5, 0.0, -1.0])
    found["Broken Memories"] = np.array([3.0, np.nan, 1.0, np.nan, np.nan, np.nan])
    measured = realism.areas(found, labels)
    assert (measured["DSM 0-1"].value, measured["Broken Memories"].value) == (1, 1)
    assert measured["Wen"].value == pytest.approx(5 / 9)
    best, more = realism.highest(found, labels)
    assert (best, more.value) == ("Wen", 0)  # the first of the equal ones, on the two prompts that ran


def test_kept_weights_go_on_elsewhere_at_their_step(tmp_path):
    torch.manual_seed(0)
    model, steps = nn.Linear(3, 1), []

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        steps.append(step)
        return model(torch.randn(4, 3, generator=generator)).square().mean()

    fit("vae", [model], loss, 4, 1e-2, tmp_path)
    before = model.weight.clone()
    keep.pack(tmp_path, tmp_path / "kept")
    keep.unpack(tmp_path / "kept", tmp_path / "elsewhere")
    model.requires_grad_(True)
    fit("vae", [model], loss, 4, 1e-2, tmp_path / "elsewhere")
    assert steps == [0, 1, 2, 3], "a finished stage is finished there too"
    torch.testing.assert_close(model.weight, before, rtol=1e-3, atol=1e-4)  # float16
    model.requires_grad_(True)
    fit("vae", [model], loss, 6, 1e-2, tmp_path / "elsewhere")
    assert steps == [0, 1, 2, 3, 4, 5]


def test_weights_do_not_go_on_with_other_data(tmp_path):
    of = {"seed": 1, "size": 32, "captions": stages.fingerprint(["a cat", "a dog"])}
    stages.belongs(tmp_path / "work", of)
    keep.pack(tmp_path / "work", tmp_path / "kept")
    keep.unpack(tmp_path / "kept", tmp_path / "elsewhere")
    stages.belongs(tmp_path / "elsewhere", of)
    with pytest.raises(SystemExit, match=r"made of seed 1, here 2; captions \w+, here \w+: name another work folder"):
        stages.belongs(tmp_path / "elsewhere", of | {"seed": 2, "captions": stages.fingerprint(["a dog", "a cat"])})


@pytest.mark.slow
def test_kept_weights_are_the_model_that_the_labels_are_of(tmp_path):
    keep.model(KEPT, "focus", tmp_path)
    model = Model(tmp_path / "bundle", "cpu", batch_size=8)
    often = pl.read_parquet(KEPT / "labels-v_prediction.parquet").filter("label", role="fixed", duplicates=64)
    again = labels.generate(model.denoiser, often["prompt"][:4].to_list(), labels.SEEDS[:2], 20)
    alike = [np.corrcoef(*(seed.ravel() for seed in seeds))[0, 1] for seeds in again.astype(float)]
    assert min(alike) > 0.9, "two seeds give one picture"


def test_errors_are_read_at_the_price_of_captions_that_are_neither():
    table = pl.DataFrame(
        {"label": [True, False, None, False, *[False] * 99], "collapsed": [False, True, *[False] * 101]}
    )
    table = table.with_columns(errors.kind(errors.CLASSES).alias("kind"), score=pl.int_range(103).cast(pl.Float64))
    assert Counter(table["kind"].str.split(":").list.first()) == {
        "memorized": 1, "collapsed": 1, "left out": 1, "neither": 100,
    }  # fmt: skip
    limit = errors.threshold(table)
    assert table.filter(kind="neither").filter(pl.col("score") > limit).height == 1


def test_an_error_counts_as_the_first_kind_that_applies():
    kinds = {"small": pl.col("x") < 3, "even": pl.col("x") % 2 == 0, "never": pl.col("x") > 9, "other": pl.lit(True)}
    table = pl.DataFrame({"x": range(8)})
    assert errors.counted(table, kinds, ("of", "all", "flagged", ""), pl.col("x") > 5).splitlines() == [
        "| of | all | flagged |  |",
        "|---|---|---|---|",
        "| small | 3 | 0 | 0.0% |",
        "| even | 2 | 1 | 50.0% |",
        "| other | 3 | 1 | 33.3% |",
    ]


def test_pictures_near_the_mean_are_found():
    images = np.full((10, 3, 4, 4), 100, np.uint8) + np.arange(10, dtype=np.uint8)[:, None, None, None] ** 2
    assert np.flatnonzero(errors.near_mean(images)).tolist() == [5, 6]  # the mean of squares is 28.5


def test_the_page_on_detection_is_made_of_the_tables_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(detection, "TABLES", tmp_path)
    rates = {"auroc": 0.99, "tpr_at_0.01": 0.9, "tpr_at_0.01_low": 0.85, "tpr_at_0.01_high": 0.95, "tpr_at_0.001": 0.5}
    for name, found in (("v", 0.9), ("v-confirmation", 0.8), ("epsilon", 0.7)):
        shown = [
            {"score": score, "seeds": seeds, "steps": 1, "passes": seeds, "collapsed": collapsed, "positives": 4,
             "negatives": 1200, **rates | {"tpr_at_0.01": found}}
            for score, seeds in detection.SHOWN for collapsed in detection.TREATMENTS
        ]  # fmt: skip
        more = {"more_tpr_at_0.01": 0.2, "more_tpr_at_0.01_low": 0.1, "more_tpr_at_0.01_high": 0.3}
        peers = [
            {"detector": detector, "passes": passes, "collapsed": collapsed, **rates, **more}
            for detector, passes in (("Wen", 1), ("length", 0)) for collapsed in detection.TREATMENTS
        ]  # fmt: skip
        told = [
            {"score": form.format(t=t), "collapsed": collapsed, "tpr_at_0.01": found - less - t / 10_000}
            for form in detection.FEATURES.values() for t in (901, 981)
            for collapsed, less in (("left out", 0), ("negative", 0.1))
        ]  # fmt: skip
        rule = [
            {"told": at, "score": "s", "seeds": 1, "mean": found - less} for at, less in (("first", 0), ("301", 0.1))
        ]
        rule += [{"told": "201", "score": "s", "seeds": 2, "mean": found}] if name == "v" else []
        for what, rows in (("scores", shown), ("peers", peers), ("timesteps", told), ("choice", rule)):
            pl.DataFrame(rows).write_csv(tmp_path / f"{name}-{what}.csv")
    lines = detection.page().splitlines()
    assert "| score or detector | passes | v | epsilon | v-confirmation |" in lines
    assert sum(line.startswith("| `text_noise_norm_v1` | 1 |") for line in lines) == len(detection.TREATMENTS)
    default = next(line for line in lines if line.startswith("| `estimate_ratio_prior_v1` | 2 |"))
    assert default.split(" | ")[2:] == [
        ".990; .900 (.850-.950); .500", ".990; .700 (.850-.950); .500", ".990; .800 (.850-.950); .500 |",
    ]  # fmt: skip
    assert (
        "| Wen | 1 | **+0.200 (+0.10 to +0.30)** | **+0.200 (+0.10 to +0.30)** | **+0.200 (+0.10 to +0.30)** |" in lines
    )
    assert not any(line.startswith("| length") for line in lines)  # no detector: it costs no pass
    told = ["| 981 |" + 3 * " .802; .702 |" + 3 * " .602; .502 |" + 3 * " .702; .602 |"]
    told.append("| 901 |" + 3 * " .810; .710 |" + 3 * " .610; .510 |" + 3 * " .710; .610 |")
    at = lines.index(told[0])
    assert lines[at : at + 2] == told
    at = lines.index("| told | score | seeds | v | epsilon | v-confirmation | mean |")
    assert lines[at + 2 : at + 5] == [  # what was measured of all
        "| first | `s` | 1 | .900 | .700 | .800 | **.800** |", "| 301 | `s` | 1 | .800 | .600 | .700 | .700 |", "",
    ]  # fmt: skip


def test_the_rule_is_the_mean_of_four_shares_by_hand():
    """Of four memorized prompts, 1,000 others, and two that collapse as high as the second of them."""
    values = np.r_[[5.0, 4.0, 3.0, -1.0], np.linspace(0, 1, 1000), [4.5, 4.5]]
    labels = pl.DataFrame({"label": [True] * 4 + [False] * 1002, "collapsed": [False] * 1004 + [True] * 2})
    found = choice.shares(values, labels)
    assert found == {
        "left out, 0.01": 0.75, "left out, 0.001": 0.75, "negative, 0.01": 0.75, "negative, 0.001": 0.25, "mean": 0.625
    }  # fmt: skip


def test_the_demo_has_the_rows_of_an_epoch(tmp_path):
    """A caption as often as it is shown, one never shown once; reference captions of the pool, in whatever case new."""
    work, out = tmp_path / "work", tmp_path / "demo"
    (work / "bundle-v_prediction").mkdir(parents=True)
    (work / "bundle-v_prediction/engine.json").write_text("{}")
    table = pl.DataFrame({name: [0, 0, 0] for name in demo.COLUMNS}).with_columns(
        prompt=pl.Series(["a fox", "The Owl", "a key"]), duplicates=pl.Series([3, 1, 0]), group=pl.Series([7, 7, 8])
    )
    table.write_parquet(work / "labels-v_prediction.parquet")
    pool = ["the owl", *(f"a drum {i}" for i in range(600))]
    np.savez(work / "pool.npz", texts=np.array(pool))
    demo.write(work, out)
    rows = pl.read_parquet(out / "captions.parquet")["caption"].to_list()
    assert Counter(rows) == {"a fox": 3, "The Owl": 1, "a key": 1}
    ordinary = (out / "reference.txt").read_text().splitlines()
    assert len(set(ordinary)) == 500
    assert set(ordinary) < set(pool[1:])
    assert ordinary != sorted(ordinary, key=pool.index)
    labelled = read_labels(out / "labels.parquet")
    assert labelled.select("prompt", "cluster").rows() == [("a fox", "7"), ("The Owl", "7"), ("a key", "8")]
    assert (out / "bundle/engine.json").read_text() == "{}"
    again = tmp_path / "again"
    demo.write(work, again)
    assert pl.read_parquet(again / "captions.parquet")["caption"].to_list() == rows


def test_a_demo_that_a_clone_cannot_carry_is_refused(tmp_path, monkeypatch):
    (tmp_path / "bundle-v_prediction").mkdir()
    (tmp_path / "bundle-v_prediction/unet.onnx").write_bytes(b"0" * 11)
    monkeypatch.setattr(demo, "LARGEST", 10)
    with pytest.raises(SystemExit, match="11 bytes, at most 10"):
        demo.write(tmp_path, tmp_path / "out")
    with pytest.raises(SystemExit, match="1 captions of the pool are none of the labelled ones, 500 are needed"):
        demo.reference(["A fox", "a drum"], ["a fox"])
