"""Keep the weights of a work folder small (float16, without the optimizer), and go on from them elsewhere:

    python -m tools.ground_truth.keep pack WORK FOLDER
    python -m tools.ground_truth.keep unpack FOLDER WORK

A stage that was finished is then finished in the new work folder too; one that was not goes on at its step, with a new
optimizer. Drawings, pictures and captions are made again from the packages.
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

STAGES = ("text", "vae", "v_prediction", "focus", "epsilon")


def pack(work: Path, folder: Path) -> None:
    """Write `folder/STAGE.safetensors` for every stage that has weights, and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (work / f"{stage}.pt" for stage in STAGES):
        if path.exists():
            saved = torch.load(path)
            (state,) = saved["modules"]
            halves = {name: (v.half() if v.is_floating_point() else v).contiguous() for name, v in state.items()}
            save_file(halves, folder / f"{path.stem}.safetensors", {"step": str(saved["step"])})
            print(f"{path.stem}: step {saved['step']}")
    if (work / "tokenizer").exists():
        shutil.copytree(work / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)


def unpack(folder: Path, work: Path) -> None:
    """Write `work/STAGE.pt` and the tokenizer; what is there already stays."""
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
    if (folder / "tokenizer").exists() and not (work / "tokenizer").exists():
        shutil.copytree(folder / "tokenizer", work / "tokenizer")


def main() -> None:
    """Pack or unpack."""
    command, source, target = sys.argv[1:]
    {"pack": pack, "unpack": unpack}[command](Path(source), Path(target))


if __name__ == "__main__":
    main()
