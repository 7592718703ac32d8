#!/bin/bash
# A scan as a Slurm array of one GPU per task, and its report. Tasks share what they read, and fill one store.
#   sbatch recipes/slurm.sh                         the scan; the number N that it prints is the array's
#   sbatch --dependency=afterok:N --wrap "overscan report --store /shared/store --out /shared/report"
# What a task scored stays, however it ends: send the whole array again, or those that failed by their numbers:
#   sbatch --array=7,12 --export=ALL,SHARDS=64 recipes/slurm.sh
#SBATCH --job-name=overscan
#SBATCH --array=1-64
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=overscan-%A_%a.log

INPUTS=${INPUTS:-/shared/data/}
MODEL=${MODEL:-/shared/bundle}
STORE=${STORE:-/shared/store}
BACKEND=${BACKEND:-cuda}
SHARD=${SHARDS:+$SLURM_ARRAY_TASK_ID/$SHARDS}

# exec: the signal, two minutes before the time is over, is the scan's; it commits the batch in hand and ends with 3
exec overscan scan "$INPUTS" --model "$MODEL" --store "$STORE" --backend "$BACKEND" --shard "${SHARD:-auto}"
