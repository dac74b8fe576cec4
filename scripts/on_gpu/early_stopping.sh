#!/bin/bash
# Makes early stopping's proof: three data sets, 3 seeds, Fashion-MNIST at four noise levels, and the shipped classifier.
# Rows are appended as they are measured, so that the end of the time loses only what is in progress.
set -u
: "${OUTDIR:?a folder for what is measured}" "${BUDGET_S:=600}"
export OMP_NUM_THREADS=2 PYTHONPATH=$PWD
START=$SECONDS
ship() { timeout $(( BUDGET_S - SECONDS + START )) python3 -m models.early_stopping.ship "$@"; }
for part in 0 1 2; do
  ship proof "$OUTDIR/part$part" --part $part --of 3 --device cuda > "$OUTDIR/part$part.txt" 2>&1 &
done
ship theory "$OUTDIR" > "$OUTDIR/theory.txt" 2>&1 &
ship train "$OUTDIR" --device cuda > "$OUTDIR/train.txt" 2>&1 &
wait
# One folder, as `python -m models.early_stopping.ship write FOLDER` takes it.
for table in proof curves; do cat "$OUTDIR"/part*/$table.jsonl > "$OUTDIR/$table.jsonl"; done
