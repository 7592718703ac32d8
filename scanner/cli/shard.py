"""`--shard`: which part of a scan this process does, as asked or as its scheduler says."""

import os
from collections.abc import Mapping
from typing import Any

import click

from scanner.dataset.shards import Shard
from scanner.errors import ScannerError

AUTO = "auto"
SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX")
KUBERNETES = "JOB_COMPLETION_INDEX"


class ShardType(click.ParamType[Shard]):
    """I/N; `auto`, of a Slurm array; `auto/N`, of a Kubernetes indexed Job, which does not tell N."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The shard. Raises click.UsageError."""
        if isinstance(value, Shard):
            return value
        first, slash, last = str(value).partition("/")
        try:
            if first == AUTO:
                return scheduled(os.environ, int(last) if slash else None)
            return Shard(int(first), int(last))
        except ValueError:
            self.fail(f"{value!r}: needed I/N with I from 1 to N, such as 1/8, or auto, or auto/N", param, ctx)
        except ScannerError as error:
            self.fail(str(error), param, ctx)


def scheduled(environment: Mapping[str, str], count: int | None) -> Shard:
    """The shard of a task of a Slurm array, or of a pod of a Kubernetes indexed Job of `count` completions.

    Raises ScannerError where neither is told, where an array's tasks are not all there (those that failed were sent
    again alone: their numbers would name other shards), and where `count` is another than the array's.
    """
    if all(name in environment for name in SLURM):
        task, tasks, first, last = (int(environment[name]) for name in SLURM)
        return _of_slurm(task, tasks, first, last, count)
    if KUBERNETES in environment:
        if count is None:
            raise ScannerError(f"shard auto: {KUBERNETES} does not say of how many: name the Job's completions, auto/N")
        return Shard(int(environment[KUBERNETES]) + 1, count)
    raise ScannerError(
        f"shard auto: neither {SLURM[0]} (an array of Slurm) nor {KUBERNETES} (an indexed Job of Kubernetes) is set: "
        "name the shard, such as 1/8"
    )


def _of_slurm(task: int, tasks: int, first: int, last: int, count: int | None) -> Shard:
    if count not in (None, tasks):
        raise ScannerError(f"shard auto/{count}: the array has {tasks} tasks: name auto alone, or the shard itself")
    whole = first in (0, 1) and last - first + 1 == tasks
    if not whole or (tasks == 1 and count is None):  # likely the tasks that failed, sent again
        raise ScannerError(
            f"shard auto: {tasks} of the array's tasks {first} to {last}, whose numbers do not tell the shards: needed "
            "an array such as 1-8, or name the shard itself, such as $SLURM_ARRAY_TASK_ID/8"
        )
    return Shard(task - first + 1, tasks)


option = click.option(
    "--shard",
    type=ShardType(),
    metavar="I/N|auto[/N]",
    help="Only part I of N of the prompts; auto: as Slurm or Kubernetes says.",
)
