"""Keep what a work folder has learnt small (float16, without the optimizer), and use it elsewhere:

    python -m tools.ground_truth.keep pack WORK FOLDER
    python -m tools.ground_truth.keep model FOLDER STAGE OUT
    python -m tools.ground_truth.keep unpack FOLDER WORK

`model` writes a checkpoint and its bundle, OUT/checkpoint and OUT/bundle, of STAGE (`focus`, the v-prediction model
that has memorized; `v_prediction`, which has not; `epsilon`): what FOLDER's labels are of. After `unpack`, a stage
that was finished is finished in the new work folder too; one that was not goes on at its step, with a new optimizer.
Drawings, pictures and captions are made again from the packages, and refused where they are not those of FOLDER.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engines.export import export

from . import diffusion, stages, towers

STAGES = ("text", "vae", "v_prediction", "focus", "epsilon")
DATA, LABELS = "data.json", "labels-*.parquet"


def pack(work: Path, folder: Path) -> None:
    """Write `folder/STAGE.safetensors` for every stage that has weights, the tokenizer, what is known of the dataset,
    and the labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (work / f"{stage}.pt" for stage in STAGES):
        if path.exists():
            saved = torch.load(path)
            (state,) = saved["modules"]
            halves = {name: (v.half() if v.is_floating_point() else v).contiguous() for name, v in state.items()}
            save_file(halves, folder / f"{path.stem}.safetensors", {"step": str(saved["step"])})
            print(f"{path.stem}: step {saved['step']}")
    known = json.loads((work / DATA).read_text(encoding="utf-8")) if (work / DATA).exists() else {}
    if (work / "latents.pt").exists():
        latents, scaling_factor = torch.load(work / "latents.pt")
        known |= {"scaling_factor": scaling_factor, "latent_std": stages.spread(latents)}
    (folder / DATA).write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    for path in work.glob(LABELS):
        shutil.copy(path, folder / path.name)
    if (work / "tokenizer").exists():
        shutil.copytree(work / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)


def unpack(folder: Path, work: Path) -> None:
    """Write `work/STAGE.pt`, the tokenizer, the labels, and of what data they are; what is there already stays."""
    work.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.safetensors")):
        out = work / f"{path.stem}.pt"
        if out.exists():
            print(f"{out} is there already")
            continue
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            step = int(file.metadata()["step"])
        whole = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
        torch.save({"modules": [whole], "step": step}, out)
    for path in (folder / DATA, *folder.glob(LABELS)):
        if path.exists() and not (work / path.name).exists():
            shutil.copy(path, work / path.name)
    if (folder / "tokenizer").exists() and not (work / "tokenizer").exists():
        shutil.copytree(folder / "tokenizer", work / "tokenizer")


def model(folder: Path, stage: str, out: Path) -> None:
    """Write the checkpoint and the bundle of one stage's denoiser."""
    known = json.loads((folder / DATA).read_text(encoding="utf-8"))
    unet = diffusion.new_unet(known["size"] // 4)
    unet.load_state_dict(load_file(folder / f"{stage}.safetensors"))
    kind = "epsilon" if stage == "epsilon" else "v_prediction"
    stages.save(out / "checkpoint", frozen(folder), unet.eval(), kind)
    export(out / "checkpoint", out / "bundle", latent_std=known["latent_std"], say=print)


def frozen(folder: Path) -> stages.Frozen:
    """Text encoder, image tower, tokenizer and VAE that lie in a folder."""
    known = json.loads((folder / DATA).read_text(encoding="utf-8"))
    tokenizer = towers.train_tokenizer([], folder / "tokenizer")
    both, vae = towers.Towers(tokenizer), diffusion.new_vae(known["size"])
    for name, module in {"text": both, "vae": vae}.items():
        module.load_state_dict(load_file(folder / f"{name}.safetensors"))
        module.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=known["scaling_factor"])
    return stages.Frozen(both, tokenizer, vae)


def main() -> None:
    """Pack, unpack, or write a model."""
    command, *named = sys.argv[1:]
    if command == "model":
        folder, stage, out = named
        model(Path(folder), stage, Path(out))
        return
    source, target = map(Path, named)
    {"pack": pack, "unpack": unpack}[command](source, target)


if __name__ == "__main__":
    main()
