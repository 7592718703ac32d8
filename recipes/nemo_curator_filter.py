"""Captions without the rows that a report names, as a stage of a NeMo Curator pipeline.

pip install nemo-curator && python nemo_curator_filter.py captions/ report/rows_to_drop.parquet clean/

Reads every Parquet file of the folder that was scanned, drops its rows and writes what is left; put `DropFlagged`
between the reader and the other stages of a pipeline of your own. It wants each file in a batch of its own, whole and
in its order, as `ParquetReader(..., files_per_partition=1)` reads it.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray, which runs the stages, reports its use otherwise

from nemo_curator.backends.xenna import XennaExecutor
from nemo_curator.pipeline import Pipeline
from nemo_curator.stages.base import ProcessingStage
from nemo_curator.stages.text.io.reader import ParquetReader
from nemo_curator.stages.text.io.writer import ParquetWriter
from nemo_curator.tasks import DocumentBatch


@dataclass
class DropFlagged(ProcessingStage[DocumentBatch, DocumentBatch]):
    """Without the rows that `rows` names, a report's rows_to_drop.parquet: [file, row], row from 0 within its file."""

    rows: str
    name: str = "drop_flagged"

    def inputs(self) -> tuple[list[str], list[str]]:
        return ["data"], []

    def outputs(self) -> tuple[list[str], list[str]]:
        return ["data"], []

    def process(self, task: DocumentBatch) -> DocumentBatch:
        (file,) = task._metadata["source_files"]
        drop = pd.read_parquet(self.rows, filters=[("file", "==", file)])["row"].to_numpy()
        documents = task.to_pandas().reset_index(drop=True)
        if len(drop) and drop.max() >= len(documents):
            raise ValueError(f"{self.rows} names row {drop.max()} of {file}, which has {len(documents)}: scan it again")
        return DocumentBatch(
            dataset_name=task.dataset_name,
            data=documents.drop(index=drop).reset_index(drop=True),
            _metadata=task._metadata,
            _stage_perf=task._stage_perf,
        )


def pipeline(captions: Path, rows: Path, clean: Path) -> Pipeline:
    stages = [
        ParquetReader(str(captions.resolve()), files_per_partition=1),
        DropFlagged(str(rows.resolve())),
        ParquetWriter(str(clean.resolve())),
    ]
    return Pipeline(name="without_flagged", stages=stages)


if __name__ == "__main__":
    stage_by_stage = XennaExecutor({"execution_mode": "batch"})  # which few cores suffice for
    pipeline(*map(Path, sys.argv[1:])).run(stage_by_stage)
