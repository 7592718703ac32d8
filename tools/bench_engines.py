"""Every backend that works here, as a whole scan, against the machine's GEMM rate and what the field's scripts do.

    python tools/bench_engines.py CHECKPOINT INPUT BUNDLE [BUNDLE ...] [--prompts N] [--peers M] [--backend B]

One run, same model, captions, seeds and cores. Bundles of the checkpoint in several precisions may be named. A backend
that is refused is listed with the reason. The peers' way, diffusers modules in torch float32 with both guidance
branches, runs before and after on the first M prompts, one prompt at a time and batched, and so do plain matrix
products. GFLOP are counted by torch on the UNet alone, so that the rate of a whole scan can be set against theirs.

The prior is drawn at random, as its passes are paid once per model: scores of this run mean nothing, rates do.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from peers import SEEDS, Peers
from rates import gflop_per_pass

from engines import BACKENDS, PRECISIONS, EngineError
from engines.cores import usable_cores
from scanner import scan
from scanner.config import ScanConfig
from scanner.dataset import captions
from scanner.diffusion.baselines import Prior
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.start import Watch, initial_noise

PEERS_BATCH = 4  # prompts at once, for the batched peers
GEMM, GEMM_SECONDS = 2048, 2.0


@dataclass(frozen=True)
class Row:
    """One way of scoring. `gflops`: of the UNet, over the whole scan without its start-up; `ratio`: to the peers.

    `startup_seconds`: opening, compiling, trying batch sizes, canaries.
    """

    way: str
    precision: str
    provider: str
    prompts: int
    prompts_per_hour: float
    gflops: float
    ratio: float
    startup_seconds: float


def gemm_rates() -> dict[str, float]:
    """By precision."""
    return {str(dtype).removeprefix("torch."): gemm_rate(dtype) for dtype in (torch.float32, torch.bfloat16)}


def gemm_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of square matrix products on all cores."""
    a, b = (torch.randn(GEMM, GEMM).to(dtype) for _ in range(2))
    times = []
    started = time.perf_counter()
    while time.perf_counter() - started < GEMM_SECONDS or len(times) < 3:
        at = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - at)
    return 2 * GEMM**3 / float(np.median(times)) / 1e9


def scanned(model: Path, captions_file: Path, prompts: int, **engine: str | int) -> tuple[str, int, float, float]:
    """Provider with its batch size, prompts, seconds of scanning, seconds of start-up."""
    began, first = time.perf_counter(), [0.0]

    def watch(what: str, done: int, total: int) -> None:
        if what == "scan":
            first[0] = first[0] or time.perf_counter()

    with (
        tempfile.TemporaryDirectory() as folder,
        patch("scanner.model.model.predict_prior", random_prior),
        patch.dict(os.environ, XDG_CACHE_HOME=folder),
    ):
        result = scan(captions_file, model=model, store=Path(folder) / "store", limit=prompts, watch=watch,
                      config=ScanConfig(seeds=SEEDS), **engine)  # fmt: skip
    way = f"{result.provider}, batch {result.batch_size}"
    return way, result.scored, time.perf_counter() - first[0], first[0] - began


def random_prior(
    denoiser: Denoiser, num_inference_steps: int, watch: Watch, told: Sequence[int], seeds: Sequence[int]
) -> Prior:
    """Instead of a UNet pass for each seed."""
    return Prior(initial_noise(seeds, denoiser.latent_shape))


def ways(checkpoint: Path, bundles: list[Path], backends: Collection[str]) -> Iterator[tuple[str, Path, str, str]]:
    """Name, model, backend and precision of all that may be tried."""
    for bundle in bundles:
        for backend in backends:
            if not backend.startswith("torch"):
                yield from ((f"{bundle.name} {backend}", bundle, backend, precision) for precision in PRECISIONS)
    yield from ((backend, checkpoint, backend, "auto") for backend in backends if backend.startswith("torch"))


def measure(
    checkpoint: Path, source: Path, bundles: list[Path], backends: Collection[str], prompts: int, few: int,
    say: Callable[[str], None],
) -> dict:  # fmt: skip
    """All rows, the GEMM rates, and what was refused."""
    texts = captions.unique_prompts(captions.read([source], limit=prompts))["text"].to_list()[:few]
    peers = Peers(checkpoint)
    gflop = gflop_per_pass(checkpoint)
    peers(texts[:1], 1)  # warm-up
    gemm_before, before = gemm_rates(), [peers(texts, batch) for batch in (1, PEERS_BATCH)]
    say(f"before: matrix products {gemm_before}, peers {before} prompts/s")
    measured, refused = [], {}
    for name, model, backend, precision in ways(checkpoint, bundles, backends):
        try:
            provider, scored, seconds, startup = scanned(model, source, prompts, backend=backend, precision=precision)
        except EngineError as error:
            refused[f"{name} {precision}"] = str(error)
            continue
        measured.append((name, precision, provider, scored, scored / seconds, startup))
        say(f"{name}: {provider}: {scored / seconds:.3f} prompts/s")
    gemm_after, after = gemm_rates(), [peers(texts, batch) for batch in (1, PEERS_BATCH)]
    rates = {name: (gemm_before[name] + gemm_after[name]) / 2 for name in gemm_before}
    alone, batched = (float(np.mean(pair)) for pair in zip(before, after, strict=True))
    rows = [
        Row("peers, one prompt at a time", "float32", "torch eager", len(texts), 3600 * alone,
            2 * len(SEEDS) * gflop * alone, 1.0, 0.0),
        Row(f"peers, {PEERS_BATCH} prompts at a time", "float32", "torch eager", len(texts), 3600 * batched,
            2 * len(SEEDS) * gflop * batched, batched / alone, 0.0),
    ]  # fmt: skip
    rows += [
        Row(name, precision, provider, scored, 3600 * rate, len(SEEDS) * gflop * rate, rate / alone, startup)
        for name, precision, provider, scored, rate, startup in measured
    ]
    return {
        "cores": usable_cores(),
        "seeds": len(SEEDS),
        "gflop_per_pass": gflop,
        "gemm_gflops": rates,
        "gemm_before_after": {name: [gemm_before[name], gemm_after[name]] for name in rates},
        "peers_before_after": {"one": [before[0], after[0]], "batched": [before[1], after[1]]},
        "rows": [asdict(row) for row in rows],
        "refused": refused,
    }


def markdown(found: dict) -> str:
    """The result as a table."""
    gemm = found["gemm_gflops"]
    lines = [
        f"{found['cores']} cores, {found['seeds']} seeds, {found['gflop_per_pass']:.2f} GFLOP per UNet pass; matrix "
        + "products reach "
        + ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in gemm.items())
        + ".",
        "",
        "| way | computes in | prompts per hour | GFLOP/s | of the GEMM rate in float32 | in bfloat16 | ratio to peers "
        + "| start-up |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['way']} | {row['provider']} | {row['prompts_per_hour']:,.0f} | {row['gflops']:.0f} | "
            f"{row['gflops'] / gemm['float32']:.2f} | {row['gflops'] / gemm['bfloat16']:.2f} | {row['ratio']:.2f} | "
            f"{row['startup_seconds']:.1f} s |"
        )
    lines += ["", "Refused:", *(f"- {name}: {reason}" for name, reason in found["refused"].items())]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("input", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--peers", type=int, default=250, help="prompts that the peers' way scores, twice in each way")
    parser.add_argument("--backend", nargs="+", choices=list(BACKENDS), default=list(BACKENDS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = measure(
        given.checkpoint, given.input, given.bundles, given.backend, given.prompts, given.peers,
        lambda line: print(line, flush=True),
    )  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    print(markdown(found))


if __name__ == "__main__":
    main()
