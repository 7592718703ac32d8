"""What the commands say of scans and stores. Data goes to stdout, words for people to stderr."""

from collections.abc import Sequence

from rich.console import Console

from scanner.cli import reading
from scanner.cli.progress import duration
from scanner.config import SCREENED_OUT, ScanConfig
from scanner.dataset.readers import Problem
from scanner.dataset.shards import Shard
from scanner.identity import shown
from scanner.scanning.dry_run import DryRun
from scanner.scanning.result import ScanResult
from scanner.store.record import Screened
from scanner.store.status import ShardStatus, StoreStatus

SHOWN_PROBLEMS = 5
SHOWN_SHARDS = 16

out_console = Console()


def summary(result: ScanResult) -> str:
    """What a scan did, in words."""
    now, skipped = f"scored now      {result.scored:,}", result.skipped
    done = result.scored
    if result.screening is not None:
        done = result.unique - result.already_scored
        now = f"refined now     {result.scored:,} of {done:,} new prompts"
        skipped = {status: count for status, count in skipped.items() if status != SCREENED_OUT}
    rate = done / result.seconds if result.seconds else 0.0
    lines = [
        *_shard(result.shard),
        f"rows            {result.rows:,}",
        f"unique prompts  {result.unique:,}",
        f"already scored  {result.already_scored:,}",
        f"{now} in {result.seconds:.1f} s ({rate:.1f} prompts/s, {_engine(result)})",
        *([] if result.screening is None else [_screening(result.screening)]),
    ]
    lines += [f"skipped         {count:,} {status}" for status, count in skipped.items()]
    lines += [*_left_out(result.left_out), *reading.lines(result.reading)]
    if result.other_scans:
        lines.append(f"store also holds {result.other_scans:,} scores of other models or settings, left alone")
    return "\n".join(lines)


def dry_summary(plan: DryRun) -> str:
    """What a scan would do, in words."""
    lines = [
        *_shard(plan.shard),
        f"rows            {plan.rows:,}",
        f"unique prompts  {plan.unique:,} ({plan.duplicates:,} rows repeat one)",
        f"already scored  {plan.already_scored:,}",
        f"pending         {plan.pending:,}",
    ]
    if plan.pending:
        speed = f"at {plan.prompts_per_second:.1f} prompts/s, {_engine(plan)}"
        if plan.first_pass is not None:
            lines.append(f"first pass      {plan.first_pass:,} pending; then about {plan.refine:,} get all passes")
        if plan.screened_because:
            lines.append(f"screen          {plan.screened_because}")
        lines.append(f"estimated       {duration(plan.seconds)} ({speed}; nothing was written)")
    lines += [*_left_out(plan.left_out), *reading.lines(plan.reading)]
    return "\n".join(lines)


def _engine(result: ScanResult | DryRun) -> str:
    return f"{result.backend} {result.precision}: {result.provider}, batch {result.batch_size}"


def _shard(shard: Shard) -> list[str]:
    return [] if shard.count == 1 else [f"shard           {shard} of the prompts, of which all below is"]


def _shards(shards: Sequence[ShardStatus]) -> list[str]:
    """How many shards are done, and of the others what they lack."""
    if not shards:
        return []
    missing = [each for each in shards if each.left != 0]
    lines = [f"  shards    {len(shards) - len(missing):,} of {len(shards):,} done"]
    for each in missing[:SHOWN_SHARDS]:
        lacks = "never begun" if each.left is None else f"{each.left:,} of {each.prompts:,} prompts are missing"
        lines.append(f"            {each.shard} {lacks}")
    more = len(missing) - SHOWN_SHARDS
    return lines if more <= 0 else [*lines, f"            {more:,} more are not done (--json lists all)"]


def _screening(screening: Screened) -> str:
    out, refined, passes = screening.screened_out, screening.refined, screening.passes_per_prompt
    below = f"{screening.score} below {screening.threshold:.4g}"
    first = "one pass" if screening.passes == 1 else f"{screening.passes:.3g} passes"
    why = f"\nscreen          {screening.why}" if screening.why else ""
    return (
        f"screened out    {out:,} of {out + refined:,}, with {below} after {first}; {passes:.2f} UNet passes per "
        "prompt on average" + (f"; {screening.sample:.3g} of all by chance got all" if screening.sample else "") + why
    )


def _left_out(problems: Sequence[Problem]) -> list[str]:
    lines = [f"left out        {problem.message}" for problem in problems[:SHOWN_PROBLEMS]]
    more = len(problems) - len(lines)
    return [*lines, f"left out        {more:,} more files"] if more > 0 else lines


def _told(config: ScanConfig) -> str:
    return f", told {' and '.join(map(str, config.told))}" if config.told else ""


def status_table(found: StoreStatus) -> str:
    """A store's scans and tables as lines."""
    lines = [f"store {found.store}"]
    for scan in found.scans:
        config, reference, base = scan.config, scan.reference, scan.base
        counts = ", ".join(f"{count:,} {status}" for status, count in scan.rows.items()) or "none yet"
        lines += [
            f"\nscan {shown(scan.scan_id)}",
            f"  model     {scan.model}",
            f"  backend   {scan.backend} {scan.precision} ({scan.provider})",
            f"  settings  seeds {', '.join(map(str, config.seeds))}; first {config.first_steps} of "
            f"{config.num_inference_steps} steps{_told(config)}; guidance scale {config.guidance_scale}; "
            f"prior of {config.prior_noises} noises",
            *([] if reference is None else [f"  reference {reference.path} ({shown(reference.fingerprint)})"]),
            *([] if base is None else [f"  base      {base.path} ({shown(base.fingerprint)})"]),
            *([] if scan.screening is None else [f"  {_screening(scan.screening)}"]),
            f"  last run  {scan.last_run} ({scan.runs} in all)",
            f"  rows      {counts}",
            *_shards(scan.shards),
            *([f"  lacks     {', '.join(scan.lacks)}: younger than its rows"] if scan.lacks else []),
        ]
    lines.append("")
    for name, table in found.tables.items():
        size = table.bytes / 1e6
        lines.append(f"table {name:6}  version {table.version}, {table.files} files, {size:,.1f} MB with old versions")
    return "\n".join(lines)
