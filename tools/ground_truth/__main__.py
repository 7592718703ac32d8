"""Make the models of the ground truth, from the packages' drawings to labelled captions, with one command:

    python -m tools.ground_truth --work build/ground-truth

Another pair of models, to confirm on what was chosen on these: other pictures, captions, roles, split and weights, at
a quarter of the price:

    python -m tools.ground_truth --work build/confirmation --seed 1 --size 32

Every stage keeps its result in the work folder; interrupted, the same command goes on where it stopped. The UNet trains
faster with a process per core: torchrun --nproc-per-node 2 -m tools.ground_truth --until v_prediction
"""

import argparse
from pathlib import Path

import torch

from . import dataset, parallel, stages

ROOT = Path(__file__).parent.parent.parent
UNTIL = ("data", "text", "vae", "v_prediction", "v_prediction-labels", "epsilon", "epsilon-labels")


def run(arguments: argparse.Namespace) -> None:
    """All stages until the one that is asked for, or one of the two that need the pool only."""
    work, until = arguments.work, UNTIL.index(arguments.until)
    found = stages.data(work, arguments.seed, arguments.size)
    if arguments.only:
        {"text": stages.text, "vae": stages.vae}[arguments.only](work, found)
        return
    if until < UNTIL.index("vae"):
        return
    parts = stages.frozen(work, found)
    for kind in stages.KINDS:
        if until < UNTIL.index(kind):
            return
        model = stages.unet(work, found, parts, kind)
        if until > UNTIL.index(kind):
            folder = stages.bundle(work, parts, model, kind)
            stages.label(work, found, parts, folder, kind, stages.Generator(arguments.backend, arguments.precision))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build/ground-truth", help="folder for all results")
    parser.add_argument(
        "--seed", type=int, default=dataset.SEED, help="another one: other pictures, captions and split"
    )
    parser.add_argument(
        "--size", type=int, choices=(64, 32), default=64, help="of a picture; 32: a quarter of the work"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--until", choices=UNTIL, default=UNTIL[-1], help="the last stage to run")
    parser.add_argument("--only", choices=("text", "vae"), help="one of the stages that need the pool only")
    parser.add_argument("--backend", default="openvino", help="what generates the labels' pictures")
    parser.add_argument("--precision", default="auto")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    parallel.join()
    run(arguments)
    parallel.leave()


if __name__ == "__main__":
    main()
