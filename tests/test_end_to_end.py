"""Whole scans with the small real model."""

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
from small import BUNDLE, CAPTIONS, CHECKPOINTS
from test_cli import run

from engines.bundle import read_manifest
from scanner import ScanConfig, ScannerError, initial_noise, read_store, scan
from scanner.diffusion.scores import ABSOLUTE, RELATIVE, SCORES
from scanner.fidelity.check import compare
from scanner.identity import prompt_id
from scanner.model import Model

SAMPLED = [
    name for name, score in SCORES.items() if score.steps == 1 and score.needs in (None, "prior") and not score.told
]  # of the sampler's first timestep
FIRST_STEP = [
    name for name, score in SCORES.items() if score.needs in (None, "prior") and score.told == 1
]  # the default
PROMPTS = pl.read_parquet(CAPTIONS)["caption"].unique(maintain_order=True)[:60]


def frame(prompts):
    return pl.DataFrame({"prompt_id": [prompt_id(p) for p in prompts], "text": prompts})


def test_noise_is_what_the_docs_say():
    noise = initial_noise((0, 5), (4, 8, 8))
    assert noise.shape == (2, 4, 8, 8)
    assert noise.dtype == np.float32
    alone = np.random.Generator(np.random.PCG64(5)).standard_normal((4, 8, 8), np.float32)
    np.testing.assert_array_equal(noise[1], alone)
    # golden values: if numpy's stream changes, every stored score would silently mean something else
    np.testing.assert_allclose(noise[0, 0, 0, :3], [1.117622, -1.3871249, -0.4265716], rtol=1e-6)


@pytest.mark.parametrize("checkpoint", ["v_prediction", "epsilon"])
def test_cpu_scores_equal_torch(checkpoint, epsilon_bundle_path):
    candidate = BUNDLE if checkpoint == "v_prediction" else epsilon_bundle_path
    first = ScanConfig(timesteps=())
    one, other = (
        Model(CHECKPOINTS[checkpoint], "torch", config=first),
        Model(candidate, "cpu", config=first, batch_size=1),
    )
    errors = compare(one, other, frame(PROMPTS))
    assert errors["score"].to_list() == SAMPLED
    assert errors["largest_error"].max() < 1e-4
    assert errors["rank_correlation"].min() > 0.9999


@pytest.mark.slow
def test_an_export_in_float16_says_how_far_its_scores_are_from_torchs(tmp_path):
    out, err, code = run("export", CHECKPOINTS["v_prediction"], tmp_path / "half", "--dtype", "float16")
    assert (out, code) == (f"{tmp_path / 'half'}\n", 0), err
    (error,) = re.findall(r"low_noise_norm_v1: largest absolute error (\S+)", err)
    assert 1e-6 < float(error) < 5e-2
    assert read_manifest(tmp_path / "half").precision == "float16"


@pytest.mark.parametrize("checkpoint", ["v_prediction", "epsilon"])
def test_norm_equals_the_pipelines_own_modules(checkpoint, tmp_path):
    """text_noise_norm_v1 == ||eps_c - eps_u|| by the diffusers pipeline's tokenizer, text encoder, UNet."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(CHECKPOINTS[checkpoint]).to(torch.float32)
    pipeline.scheduler.set_timesteps(50)
    timestep = pipeline.scheduler.timesteps[0]
    prompts = list(PROMPTS[:6])
    x_T = torch.from_numpy(initial_noise((0, 1), (4, 8, 8)))

    def eps(prompt):
        ids = pipeline.tokenizer(prompt, padding="max_length", truncation=True, return_tensors="pt").input_ids
        hidden = pipeline.text_encoder(ids).last_hidden_state.expand(2, -1, -1)
        output = pipeline.unet(x_T, timestep, hidden).sample
        if pipeline.scheduler.config.prediction_type == "epsilon":
            return output
        abar = pipeline.scheduler.alphas_cumprod[timestep]
        return abar.sqrt() * output + (1 - abar).sqrt() * x_T

    with torch.inference_mode():
        expected = [float((eps(p) - eps("")).flatten(1).norm(dim=1).mean()) for p in prompts]
    (tmp_path / "p.txt").write_text("\n".join(prompts))
    first = ScanConfig(timesteps=())
    result = scan(tmp_path / "p.txt", model=CHECKPOINTS[checkpoint], store=tmp_path / "store", config=first)
    np.testing.assert_allclose(result.scores["text_noise_norm_v1"], expected, rtol=1e-4)


def test_whole_denoising_equals_the_diffusers_pipeline(bundle):
    import torch
    from diffusers import StableDiffusionPipeline

    from scanner.diffusion.denoiser import Denoiser
    from scanner.diffusion.start import start
    from scanner.diffusion.trace import denoise

    pipeline = StableDiffusionPipeline.from_pretrained(CHECKPOINTS["v_prediction"]).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    denoiser, prompt = Denoiser(bundle), PROMPTS[0]
    first = start(denoiser, (0,), 10)
    *_, last = denoise(denoiser, denoiser.encode([prompt]), first, 7.5, 10)
    latents = torch.from_numpy(first.x_T)
    theirs = pipeline(prompt, num_inference_steps=10, guidance_scale=7.5, latents=latents, output_type="latent").images
    np.testing.assert_allclose(last.x_t[0], theirs.numpy(), atol=2e-3)  # ten steps, each 13-fold at the start
    image = denoiser.decode(last.x_t[0])
    assert image.shape == (1, 3, 32, 32)
    assert np.abs(image).max() < 2


@pytest.fixture
def reference(tmp_path):
    """Scores of 60 prompts, one row each."""
    path = tmp_path / "reference.txt"
    path.write_text("\n".join(PROMPTS))
    return scan(path, model=BUNDLE, store=tmp_path / "reference-store").scores.sort("prompt_id")


def assert_same(found, expected):
    """Equal but for float32 rounding: other batches take other GEMM kernels, and X amplifies errors of eps 13-fold."""
    found = found.sort("prompt_id")
    assert found["prompt_id"].to_list() == expected["prompt_id"].to_list()
    for name in FIRST_STEP:
        np.testing.assert_allclose(found[name], expected[name], rtol=RELATIVE, atol=ABSOLUTE, err_msg=name)


def test_order_duplicates_and_batch_do_not_matter(tmp_path, reference):
    rows = list(PROMPTS) * 2
    random.Random(0).shuffle(rows)
    pl.DataFrame({"text": rows}).write_csv(tmp_path / "shuffled.csv")
    result = scan(tmp_path / "shuffled.csv", model=BUNDLE, store=tmp_path / "store", batch_size=7)
    assert (result.rows, result.unique, result.scored) == (120, 60, 60)
    assert set(result.scores["n_rows"]) == {2}
    assert_same(result.scores, reference)


def test_only_what_is_new_is_scored(tmp_path, reference):
    for n, already in ((20, 0), (60, 20), (60, 60)):
        (tmp_path / "grown.txt").write_text("\n".join(PROMPTS[:n]))
        result = scan(tmp_path / "grown.txt", model=BUNDLE, store=tmp_path / "store")
        assert (result.unique, result.already_scored, result.scored) == (n, already, n - already)
    assert_same(result.scores, reference)


def test_scores_of_other_settings_never_mix(tmp_path, epsilon_bundle_path):
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS[:3]))
    ids = []
    for model, config in (
        (BUNDLE, ScanConfig()),
        (BUNDLE, ScanConfig(seeds=(0, 1, 2))),
        (BUNDLE, ScanConfig(guidance_scale=3.0)),
        (epsilon_bundle_path, ScanConfig()),
    ):
        result = scan(tmp_path / "p.txt", model=model, store=tmp_path / "store", config=config)
        assert (result.scored, result.other_scans) == (3, 3 * len(ids))
        ids.append(result.scan_id)
    assert len(set(ids)) == 4


def test_more_steps_leave_the_first_step_alone(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS[:3]))
    one, two = (
        scan(tmp_path / "p.txt", model=BUNDLE, store=tmp_path / "store", config=config).scores
        for config in (ScanConfig(timesteps=()), ScanConfig(first_steps=2))
    )
    for name in SAMPLED:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-6)  # other strides, other summation order
    more = [name for name, score in SCORES.items() if score.steps > 1]
    assert one.select(more).null_count().row(0) == (3,) * len(more)
    assert two.select(more).null_count().row(0) == (0,) * len(more)


def test_bad_captions_are_rows_with_a_status(tmp_path):
    bad = [
        "",
        "  ",
        None,
        "x" * 10_000,
        "nul\x00byte",
        "<script>alert(1)</script>",
        "\u202eright to left שלום",
        "\ufffd",
    ]
    pl.DataFrame({"caption": bad}).write_parquet(tmp_path / "bad.parquet")
    scores = scan(tmp_path / "bad.parquet", model=BUNDLE, store=tmp_path / "store").scores
    assert scores.select("status", "truncated", "n_rows").rows() == [
        ("empty", None, 2),
        ("null", None, 1),
        ("scored", True, 1),
        ("scored", False, 1),
        ("scored", True, 1),
        ("scored", False, 1),
        ("undecodable", None, 1),
    ]
    assert scores.filter(status="scored").select(FIRST_STEP).null_count().sum_horizontal().item() == 0


def test_predictions_that_overflow_make_a_row_without_scores(bundle):
    scorer = Model.of(bundle).scorer()
    expected, predict = scorer(frame(PROMPTS[:3])), scorer.denoiser.predict

    def overflowing(x_t, timestep, conditioning):
        predicted = predict(x_t, timestep, conditioning)
        predicted.eps[1, 0, 0, 0, 0] = np.inf
        return predicted

    scorer.denoiser.predict = overflowing
    with np.errstate(invalid="ignore"):
        found = scorer(frame(PROMPTS[:3]))
    assert found["status"].to_list() == ["scored", "non_finite", "scored"]
    assert found[1].select(list(SCORES)).null_count().row(0) == (1,) * len(SCORES)
    assert found["q1"].list.first().is_finite().to_list() == [True, False, True]
    assert found[::2].equals(expected[::2])


def test_an_empty_dataset_is_refused(tmp_path):
    pl.DataFrame({"caption": []}, schema={"caption": pl.String}).write_parquet(tmp_path / "none.parquet")
    with pytest.raises(ScannerError, match="no caption rows in it"):
        scan(tmp_path / "none.parquet", model=BUNDLE, store=tmp_path / "store")


def test_only_bad_captions_are_no_crash(tmp_path):
    (tmp_path / "p.txt").write_text("\n\n")
    result = scan(tmp_path / "p.txt", model=BUNDLE, store=tmp_path / "store")
    assert (result.scored, result.skipped) == (0, {"null": 1})


def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path, reference):
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    code = (
        "import scanner, sys; sys.modules['scanner.scanning.passes'].COMMIT_SECONDS = 0.02;"
        f"scanner.scan({str(tmp_path / 'p.txt')!r}, model={str(BUNDLE)!r}, store={str(tmp_path / 'store')!r},"
        " batch_size=4, backend='cpu')"
    )
    moments = random.Random(1)
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.3, 2.0))
        process.kill()
        process.wait()
    subprocess.run([sys.executable, "-c", code], check=True)
    rows = pl.read_delta(str(tmp_path / "store/scores"))
    assert len(rows) == rows["prompt_id"].n_unique() == len(PROMPTS)
    assert_same(rows, reference)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_commits_the_batch_in_hand_and_exits_with_3(tmp_path, number):
    (tmp_path / "many.txt").write_text("\n".join(f"cat number {i}" for i in range(20_000)))
    command = [sys.executable, "-c", "from scanner.cli import main; main()", "scan", str(tmp_path / "many.txt")]
    command += ["--model", str(BUNDLE), "--store", str(tmp_path / "store")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"NO_COLOR": "1"})
    deadline = time.monotonic() + 60
    while not (tmp_path / "store/runs/_delta_log/00000000000000000001.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3, said
    assert "stopping after the batch in hand; once more to stop at once\n" in said
    (committed,) = re.findall(r"error: interrupted: what was computed is committed \(([\d,]+) of 20,000 pending", said)
    rows = pl.read_delta(str(tmp_path / "store/scores"))
    assert len(rows) == rows["prompt_id"].n_unique() == int(committed.replace(",", "")) > 0


def test_unreadable_files_are_left_out_and_named_or_strictly_refused(tmp_path):
    folder = tmp_path / "captions"
    folder.mkdir()
    (folder / "a.txt").write_text("\n".join(PROMPTS[:3]))
    pl.DataFrame({"caption": PROMPTS[3:5]}).write_parquet(folder / "b.parquet")
    whole = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(whole[:-20])  # shows when it is opened
    packed = gzip.compress(b'{"caption": "a"}\n' * 150_000, 1)
    (folder / "c.jsonl.gz").write_bytes(packed[:-9])  # shows when it is read
    with pytest.raises(ScannerError, match=r"b\.parquet: cannot be read"):
        scan(folder, model=BUNDLE, store=tmp_path / "store", strict=True)
    result = scan(folder, model=BUNDLE, store=tmp_path / "store")
    assert (result.unique, result.scored) == (3, 3)
    assert [problem.file for problem in result.left_out] == [str(folder / "b.parquet"), str(folder / "c.jsonl.gz")]
    assert sorted(read_store(tmp_path / "store").scores["text"]) == sorted(PROMPTS[:3])

    (folder / "b.parquet").write_bytes(whole)  # repaired: part of the next scan, and not of this one's report
    assert len(read_store(tmp_path / "store").scores) == 3
    (folder / "c.jsonl.gz").unlink()
    result = scan(folder, model=BUNDLE, store=tmp_path / "store", strict=True)
    assert (result.already_scored, result.scored, result.left_out) == (3, 2, ())


def test_a_report_names_the_files_whose_captions_are_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("\n".join(PROMPTS[:3]))
    for name in ("b", "c"):
        pl.DataFrame({"caption": [f"cat {name} {i}" for i in range(9999)]}).write_parquet(f"data/{name}.parquet")
    whole = (tmp_path / "data/b.parquet").read_bytes()
    (tmp_path / "data/b.parquet").write_bytes(whole[:4] + b"\xff" * 2000 + whole[2004:])  # opens, cannot be read
    (tmp_path / "data/c.parquet").write_bytes(b"damaged")
    result = scan("data", model=BUNDLE, store="store")
    b, c = (str(tmp_path / f"data/{name}.parquet") for name in ("b", "c"))
    assert [problem.file for problem in result.left_out] == [c, b]
    stored = read_store("store")
    missing = [f"files that could not be read when scanned, whose captions are missing: {c}, {b}"]
    assert sorted(stored.scores["text"]) == sorted(PROMPTS[:3])
    assert stored.notes == result.notes == missing

    (tmp_path / "data/d.parquet").write_bytes(b"damaged, and newer than the scan")
    _, err, code = run("report", "--store", "store", "--out", "report")
    missing.append(f"files that cannot be read now, whose captions are missing: {tmp_path / 'data/d.parquet'}")
    assert code == 0
    assert [line for line in err.splitlines() if line.startswith("note: ")] == [f"note: {note}" for note in missing]
    assert json.loads((tmp_path / "report/summary.json").read_text())["notes"] == missing
