"""Make the models of the ground truth, from the packages' drawings to labelled captions, with one command:

    python -m tools.ground_truth --work build/ground-truth

Every stage keeps its result in the work folder; interrupted, the same command goes on where it stopped.
"""

import argparse
from pathlib import Path

import torch

from . import diffusion, roles, sources, towers
from .fit import fit

ROOT = Path(__file__).parent.parent.parent
STAGES = ("data", "text", "vae", "v_prediction")


def data(work: Path, seed: int) -> tuple[roles.Dataset, tuple]:
    """The diffusion model's dataset, and the pool's pictures and captions."""
    known, pixels = sources.drawings(work)
    pool = roles.build_pool(work, known, pixels, seed)
    dataset = roles.build(work, known, pixels, seed)
    print(
        f"{len(known)} drawings; pool: {len(pool[0])} pictures; {len(dataset.images)} pictures in {len(dataset.rows)} rows, "
        f"{len(dataset.prompts)} captions", flush=True,
    )  # fmt: skip
    return dataset, pool


def text(work: Path, pool: tuple) -> tuple[towers.Towers, towers.CLIPTokenizer]:
    """The frozen towers."""
    images, texts = pool
    tokenizer = towers.train_tokenizer(texts, work / "tokenizer")
    torch.manual_seed(0)
    both = towers.Towers(tokenizer)
    loss = towers.towers_loss(both, images, towers.tokenize(tokenizer, texts))
    fit("text", [both], loss, towers.STEPS, towers.LR, work)
    return both, tokenizer


def vae(work: Path, pool: tuple) -> torch.nn.Module:
    torch.manual_seed(1)
    model = diffusion.new_vae()
    fit("vae", [model], diffusion.vae_loss(model, pool[0]), diffusion.VAE_STEPS, diffusion.VAE_LR, work)
    return model


@torch.no_grad()
def hidden_states(encoder: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """The text encoder's last hidden states, float32 [n, L, HIDDEN]."""
    return torch.cat([encoder(part).last_hidden_state for part in tokens.split(512)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build/ground-truth", help="folder for all results")
    parser.add_argument("--seed", type=int, default=roles.SEED)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1], help="the last stage to run")
    parser.add_argument("--only", choices=("text", "vae"), help="one of the stages that need the pool only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    dataset, pool = data(work, arguments.seed)
    if arguments.only or arguments.until == "data":
        if arguments.only:
            {"text": text, "vae": vae}[arguments.only](work, pool)
        return
    both, tokenizer = text(work, pool)
    model = vae(work, pool)
    latents, psnr = diffusion.encode(model, dataset.images)
    print(f"vae: PSNR {psnr:.2f} dB on the diffusion model's pictures", flush=True)
    tokens = towers.tokenize(tokenizer, [*map(str, dataset.prompts), ""])
    hidden = hidden_states(both.text, tokens)
    torch.manual_seed(2)
    unet = diffusion.new_unet()
    loss = diffusion.diffusion_loss(dataset.batch, latents, hidden, unet, "v_prediction")
    keep = [diffusion.UNET_STEPS * quarter // 4 for quarter in (1, 2, 3)]
    fit("v_prediction", [unet], loss, diffusion.UNET_STEPS, diffusion.UNET_LR, work, keep)


if __name__ == "__main__":
    main()
