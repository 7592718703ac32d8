"""Bundles that their fingerprint proves intact and that cannot be true: refused in a sentence when they are read."""

import json
import re
from dataclasses import asdict, replace

import pytest
from signed import part, signed
from small import BUNDLE
from test_cli import run

from engines import BundleError, open_bundle
from engines.interface import TensorSpec
from engines.manifest import Manifest, sha256

GRID = {"timesteps": [981.0], "signal_rate": [0.6], "noise_rate": [0.8], "initial_noise_scale": 1.0}


def other(**changes):
    return lambda made: replace(made, **changes)


def schedule(**changes):
    return lambda made: replace(made, schedule=dict(made.schedule) | changes)


def grid(**changes):
    return other(grids={"50": GRID | changes})


MUTATIONS = {
    "family": (other(family=7), "family 7; needed a name"),
    "prediction": (other(prediction_type=None), "prediction_type"),
    "precision": (other(precision="float8"), "precision 'float8'; needed float32"),
    "latent of two sizes": (other(latent_shape=(4, 8)), "latent_shape [4, 8]; needed channels, height and width"),
    "latent of nothing": (other(latent_shape=(4, 0, 8)), "latent_shape [4, 0, 8]"),
    "negative latent": (other(latent_shape=(4, -8, 8)), "latent_shape [4, -8, 8]"),
    "huge latent": (other(latent_shape=(4, 2_000_000_000, 8)), "latent_shape [4, 2000000000, 8]"),
    "latent in text": (other(latent_shape=("4", "8", "8")), "latent_shape ['4', '8', '8']"),
    "fractional latent": (other(latent_shape=(4, 8.0, 8)), "latent_shape [4, 8.0, 8]"),
    "latent of another size": (other(latent_shape=(4, 16, 16)), "unet's sample has shape [None, 4, 8, 8]; needed 16"),
    "latent_std nan": (other(latent_std=float("nan")), "latent_std nan; needed a number above 0"),
    "latent_std inf": (other(latent_std=float("inf")), "latent_std inf"),
    "latent_std 0": (other(latent_std=0), "latent_std 0"),
    "latent_std text": (other(latent_std="1"), "latent_std '1'"),
    "latent_std beyond floats": (other(latent_std=10**400), "latent_std 1000"),
    "schedule a list": (other(schedule=[1, 2]), "schedule [1, 2]; needed names and values"),
    "beta_start 0": (schedule(beta_start=0), "beta_start 0; needed a number above 0 and below 1"),
    "beta_start negative": (schedule(beta_start=-0.1), "beta_start -0.1"),
    "beta_end 1": (schedule(beta_end=1.0), "beta_end 1.0"),
    "beta_end nan": (schedule(beta_end=float("nan")), "beta_end nan"),
    "betas swapped": (schedule(beta_start=0.5, beta_end=0.1), "beta_start 0.5 and beta_end 0.1"),
    "no training steps": (schedule(num_train_timesteps=0), "num_train_timesteps 0; needed 2 to 100000"),
    "negative training steps": (schedule(num_train_timesteps=-1000), "num_train_timesteps -1000"),
    "endless training": (schedule(num_train_timesteps=10**15), "num_train_timesteps 1000000000000000"),
    "training steps in text": (schedule(num_train_timesteps="1000"), "num_train_timesteps '1000'"),
    "fractional training steps": (schedule(num_train_timesteps=1e3), "num_train_timesteps 1000.0"),
    "offset beyond": (schedule(steps_offset=1000), "steps_offset 1000; needed 0 to 999"),
    "offset negative": (schedule(steps_offset=-2), "steps_offset -2"),
    "spacing a number": (schedule(timestep_spacing=3), "timestep_spacing 3; needed a name"),
    "curve a list": (schedule(curve=["linear"]), "curve ['linear']; needed a name"),
    "end a text": (schedule(set_alpha_to_one="yes"), "set_alpha_to_one 'yes'; needed true or false"),
    "no tokenizer": (other(tokenizer={}), "tokenizer: none; needed a file and its hash"),
    "tokenizer's hash a number": (other(tokenizer={"tokenizer.json": 1}), "tokenizer {'tokenizer.json': 1}"),
    "network without files": (part("unet", files={}), "files of unet: none; needed a file"),
    "ids in float": (part("text_encoder", input_ids=TensorSpec("float32", (None, 16))), "input_ids is 'float32'"),
    "ids of 2e9": (part("text_encoder", input_ids=TensorSpec("int64", (None, 2 * 10**9))), "sizes of a network"),
    "ids of another length": (
        part("text_encoder", input_ids=TensorSpec("int64", (None, 77))), "needed 77 where it has 16, as elsewhere"
    ),
    "unknown dtype": (part("unet", sample=TensorSpec("float128", (None, 4, 8, 8))), "sample is 'float128'"),
    "dtype a number": (part("unet", output=TensorSpec(5, (None, 4, 8, 8))), "output is 5; needed float32"),
    "fixed batch": (part("unet", sample=TensorSpec("float32", (1, 4, 8, 8))), "needed null and 3 sizes"),
    "negative axis": (part("unet", encoder_hidden_states=TensorSpec("float32", (None, 16, -1))), "sizes of a network"),
    "lost axis": (part("unet", timestep=TensorSpec("int64", (None, 1))), "timestep has shape [None, 1]"),
    "no axis": (part("unet", timestep=TensorSpec("int64", ())), "timestep has shape []"),
    "text of another width": (
        part("text_encoder", encoder_hidden_states=TensorSpec("float32", (None, 16, 96))), "needed 96 where it has 128"
    ),
    "timestep the graph lacks": (
        part("unet", timestep=TensorSpec("float32", (None,))), "timestep is int64 [N], the manifest says float32 [N]"
    ),
    "image the graph lacks": (
        lambda made: part("vae_decoder", image=TensorSpec("float32", (None, 3, 64, 64)))(
            part("vae_encoder", image=TensorSpec("float32", (None, 3, 64, 64)))(made)
        ),
        "image is float32 [N, 3, 32, 32], the manifest says float32 [N, 3, 64, 64]",
    ),
    "grid without rates": (other(grids={"50": {"timesteps": [981.0]}}), "grid '50'; needed a number of steps, with"),
    "grid of no number": (other(grids={"many": GRID}), "grid 'many'; needed a number of steps"),
    "grid of no steps": (grid(timesteps=[], signal_rate=[], noise_rate=[]), "timesteps of grid 50: []; needed one for"),
    "grid beyond training": (grid(timesteps=[1000.0]), "timesteps of grid 50: [1000.0]; needed one for"),
    "grid of unequal length": (grid(signal_rate=[0.6, 0.5]), "signal rates of grid 50: [0.6, 0.5]"),
    "grid of nan": (grid(noise_rate=[float("nan")]), "noise rates of grid 50: [nan]"),
    "grid of impossible rates": (grid(noise_rate=[0.1]), "rates of grid 50; needed squares that add up to 1"),
    "grids a number": (other(grids=7), "grids 7; needed one by number of steps"),
    "no grids": (other(grids={}), "grids {}; needed one by number of steps"),
    "grid that goes back": (
        grid(timesteps=[961.0, 981.0], signal_rate=[0.6, 0.8], noise_rate=[0.8, 0.6]), "none after an earlier one"
    ),
    "grid of more and more noise": (
        grid(timesteps=[981.0, 961.0], signal_rate=[0.6, 0.0], noise_rate=[0.8, 1.0]), "less noise at each step"
    ),
    "grid between whole numbers": (grid(timesteps=[980.5]), "timesteps of grid 50 for a network that is told int64"),
    "absurd first noise": (grid(initial_noise_scale=14.6), "initial_noise_scale 14.6 of grid 50; needed"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_cannot_be_true_is_refused(linked, made, name):
    change, said = MUTATIONS[name]
    signed(linked, change(made))
    with pytest.raises(BundleError, match=re.escape(said)) as refused:
        open_bundle(linked, "cpu")
    assert str(refused.value).endswith(": export the model again")
    assert len(str(refused.value)) < 500


def tokens(**changes):
    """The tokenizer's own settings, changed; `...` takes one away."""
    return lambda made: {key: value for key, value in (made | changes).items() if value is not ...}


def deeper(key, **changes):
    return lambda made: made | {key: made[key] | changes}


def with_token(number):
    def change(made):
        return made | {"added_tokens": [*made["added_tokens"], made["added_tokens"][0] | {
            "id": number, "content": "<dog>", "special": False}]}  # fmt: skip

    return change


def with_word(made):
    return made | {"model": made["model"] | {"vocab": made["model"]["vocab"] | {"dog</w>x": 90_000}}}


TOKENIZERS = {
    "padding of 2e9": (
        deeper("padding", strategy={"Fixed": 2 * 10**9}),
        "pads to 2000000000 and cuts at 16 tokens; nee",
    ),
    "padding of another length": (deeper("padding", strategy={"Fixed": 77}), "pads to 77 and cuts at 16"),
    "padding to the longest": (deeper("padding", strategy="BatchLongest"), "pads to None and cuts at 16"),
    "padding in multiples": (deeper("padding", pad_to_multiple_of=10**9), "pads to 16 and cuts at 16 tokens; needed"),
    "no padding": (tokens(padding=None), "pads to None and cuts at 16 tokens; needed 16 and 16"),
    "no truncation": (tokens(truncation=None), "pads to 16 and cuts at None tokens"),
    "truncation beyond": (deeper("truncation", max_length=2 * 10**9), "pads to 16 and cuts at 2000000000"),
    "overlaps": (deeper("truncation", stride=4), "overlaps parts by 4; needed 0"),
    "padding id beyond": (
        deeper("padding", pad_id=4_000_000_000),
        "gives token ids up to 4000000000; needed below 1502",
    ),
    "start id beyond": (
        deeper("post_processor", cls=["<|startoftext|>", 70_000]),
        "gives token ids up to 70000; needed",
    ),
    "word beyond": (with_word, "gives token ids up to 90000; needed below 1502, the text encoder's"),
    "added token beyond": (with_token(1502), "gives token ids up to 1502; needed below 1502"),
    "negative id": (deeper("padding", pad_id=-1), "the bundle's tokenizer cannot be read"),
    "nothing": (lambda made: {}, "the bundle's tokenizer cannot be read"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_the_text_encoder_could_not_take_is_refused(linked, made, name):
    change, said = TOKENIZERS[name]
    content = json.dumps(change(json.loads((BUNDLE / "tokenizer.json").read_text())))
    (linked / "tokenizer.json").unlink()
    (linked / "tokenizer.json").write_text(content)
    signed(linked, replace(made, tokenizer={"tokenizer.json": sha256(linked / "tokenizer.json")}))
    with pytest.raises(BundleError, match=re.escape(said)):
        open_bundle(linked, "cpu")


def test_a_refused_bundle_exits_with_4_in_one_line(linked, made, tmp_path):
    signed(linked, replace(made, latent_std=float("nan")))
    (tmp_path / "captions.txt").write_text("a red barn\n")
    _, err, code = run("scan", tmp_path / "captions.txt", "--model", linked, "--store", tmp_path / "store")
    assert code == 4
    assert err.splitlines()[-1] == (
        f"error: {linked}/engine.json: latent_std nan; needed a number above 0, about 1: export the model again"
    )


def test_a_manifest_says_what_it_says_again(made):
    """What validation reads is what the fingerprint covers."""
    with_grid = replace(made, grids={"50": GRID})
    assert with_grid.fingerprint != made.fingerprint == "2b44c1489108cc49a133b69565af9bb4"
    assert asdict(with_grid)["grids"] == {"50": GRID}
    assert isinstance(with_grid, Manifest)
