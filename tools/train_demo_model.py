"""Make the bundled demo models, from the packages' artwork to labelled captions, with one command:

    python tools/train_demo_model.py --work build/demo-model

Every stage keeps its result in the work folder; interrupted, the same command goes on where it stopped. Seeded; on
other hardware the weights differ in their last bits, and with them some borderline labels.

`--seed N --out FOLDER` makes other models, with other captions, images and splits, to confirm what was chosen on these.
"""

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from demo_model import artwork, dataset, ground_truth, training
from diffusers import StableDiffusionPipeline

from engines import open_bundle
from engines.export import export

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "scanner/demo"
MOST_ONCE = {"v_prediction": 1800, "epsilon": 640}  # captions shown once that are generated: of the demo's model, all


@dataclass(frozen=True)
class Place:
    """Where the results of one model go."""

    checkpoint: Path
    bundle: Path
    labels: Path


def places(work: Path, out: Path | None) -> dict[str, Place]:
    """For each prediction type: into the repository, only the demo's bundle being kept there, or all into `out`."""
    if out is not None:
        return {
            kind: Place(out / f"checkpoint-{kind}", out / f"bundle-{kind}", out / f"labels-{kind}.parquet")
            for kind in ("v_prediction", "epsilon")
        }
    checkpoints = ROOT / "tests/checkpoints"
    return {
        "v_prediction": Place(checkpoints / "demo-v", DEMO / "bundle", DEMO / "labels.parquet"),
        "epsilon": Place(checkpoints / "demo-epsilon", work / "bundle-epsilon", checkpoints / "labels-epsilon.parquet"),
    }


@torch.no_grad()
def encode(vae: torch.nn.Module, data: dataset.Dataset) -> torch.Tensor:
    """The training images' latents, float32 [n, 4, 8, 8], of unit variance; sets the VAE's scaling factor."""
    images = torch.from_numpy(data.images).float() / 127.5 - 1
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(256)])
    error = torch.cat([vae.decode(part).sample for part in latents.split(256)]) - images
    print(f"vae: PSNR {10 * torch.log10(4 / error.square().mean()):.2f} dB on the training images", flush=True)
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    return latents * vae.config.scaling_factor


def train(work: Path, data: dataset.Dataset, checkpoints: dict[str, Path]) -> None:
    """Train the VAE, the v-prediction model and, from it, the epsilon model; save both as fp16 diffusers folders."""
    _, _, drawings = artwork.drawings(work)
    print(f"{len(data.images)} images, {data.image_repeats.sum()} per epoch, {len(data.prompts)} prompts", flush=True)
    texts = [str(prompt) for prompt in data.prompts]
    tokenizer = training.train_tokenizer(texts, work / "tokenizer")
    tokens = training.tokenize(tokenizer, [*texts, ""])

    torch.manual_seed(data.seed)
    vae, text_encoder, unet = training.new_vae(), training.new_text_encoder(tokenizer), training.new_unet()

    def fresh_images(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(0, len(drawings), (training.VAE_BATCH,), generator=generator)
        return artwork.compose(drawings[chosen], generator)

    training.fit("vae", [vae], training.vae_loss(vae, fresh_images), training.VAE_STEPS, 2e-3, work)
    latents = encode(vae, data)

    for name, steps, lr in (
        ("v_prediction", training.UNET_STEPS, 1e-3),
        ("epsilon", training.EPSILON_STEPS, 8e-4),  # goes on from the v model's weights
    ):
        for module in (text_encoder, unet):
            module.requires_grad_(True)
        loss = training.diffusion_loss(data, latents, tokens, text_encoder, unet, name)
        training.fit(name, [text_encoder, unet], loss, steps, lr, work)
        halves = (copy.deepcopy(module).half() for module in (vae, text_encoder))
        pipeline = StableDiffusionPipeline(
            *halves, tokenizer, copy.deepcopy(unet).half(), training.scheduler(name),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        pipeline.save_pretrained(checkpoints[name])


def latent_std(vae_encoder: object, data: dataset.Dataset) -> float:
    """RMS distance per element of the training latents from their mean."""
    images = (data.images / 127.5 - 1).astype(np.float32)
    parts = (images[i : i + 256] for i in range(0, len(images), 256))
    latents = np.concatenate([vae_encoder.run({"image": part})["latent"] for part in parts])
    return float(np.sqrt(np.square(latents - latents.mean(0)).mean()))


def export_bundle(place: Place, data: dataset.Dataset) -> None:
    """Export a checkpoint with the spread of its training latents."""
    std = latent_std(open_bundle(place.checkpoint).engine("vae_encoder"), data)
    export(place.checkpoint, place.bundle, latent_std=round(std, 4), say=print)


def captions(data: dataset.Dataset) -> pl.DataFrame:
    """The demo's dataset: a row for each row of the training set, and one for each prompt that was never trained on."""
    times = np.maximum(data.duplicates, 1)
    rows = np.random.default_rng(data.seed).permutation(np.repeat(np.arange(len(data.prompts)), times))
    return pl.DataFrame({"caption": data.prompts[rows].tolist()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build/demo-model", help="folder for intermediate results")
    parser.add_argument("--seed", type=int, default=dataset.SEED)
    parser.add_argument("--out", type=Path, help="folder for the results, instead of the repository")
    arguments = parser.parse_args()
    work, out = arguments.work, arguments.out
    if arguments.seed != dataset.SEED and out is None:
        parser.error("another --seed needs --out: the repository holds the models of the default seed")
    data, kinds = dataset.build(work, arguments.seed), places(work, out)
    if not all((place.checkpoint / "model_index.json").exists() for place in kinds.values()):
        train(work, data, {kind: place.checkpoint for kind, place in kinds.items()})
    for kind, place in kinds.items():
        if not place.bundle.exists():
            export_bundle(place, data)
        table = ground_truth.table(place.bundle, data, work / f"images-{kind}", MOST_ONCE[kind])
        table.write_parquet(place.labels)
        print(table.group_by("role", "duplicates").agg(
            pl.len(), pl.col("label").sum().alias("memorized"), pl.col("label").null_count().alias("left_out"),
            pl.col("collapsed").sum(), pl.col("similarity", "cross_seed_similarity").mean(),
        ).sort("role", "duplicates"))  # fmt: skip
        print(ground_truth.unseen(place.bundle, data, work))
    if out is None:
        captions(data).write_parquet(DEMO / "captions.parquet")
        labels = pl.read_parquet(kinds["v_prediction"].labels)
        print("\n".join(ground_truth.sample_grid(DEMO / "bundle", data, labels, ROOT / "docs/samples.png")))


if __name__ == "__main__":
    main()
