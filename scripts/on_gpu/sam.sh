#!/bin/bash
# Makes SAM's proof whole: the table of 12 optimisers x 4 noise levels x 5 seeds, WRN-10-2 on clean Fashion-MNIST
# (SAM against SGD for twice the epochs, 3 seeds), two other methods' trainers with SAM, the cost of a step.
# Rows are appended as they are measured, so that the end of the time loses only what is in progress.
set -u
: "${OUTDIR:?a folder for what is measured}" "${BUDGET_S:=1200}"
export OMP_NUM_THREADS=2 PYTHONPATH=$PWD
START=$SECONDS
ship() { timeout $(( BUDGET_S - SECONDS + START )) python3 -m models.sam.ship "$@" --device cuda; }
mkdir -p "$OUTDIR/table" "$OUTDIR/double"
ship time "$OUTDIR"
{
  ship proof "$OUTDIR/table" --arms SGD "SAM, rho 0.05" "SAM, rho 0.1" "SAM, rho 0.2" "SAM, rho 0.5" \
    "random direction, rho 0.2" "SGD, label smoothing 0.1" "SGD, mixup 0.2" "SGD, moving average 0.999"
  for seed in 0 1 2; do ship trainers "$OUTDIR/table" --subject aum --seed $seed; done
} > "$OUTDIR/table.txt" 2>&1 &
{
  ship proof "$OUTDIR/double" --arms "SGD, twice the epochs" "SAM, rho 0.2, m 25" "SAM, rho 0.2, m 10"
  for seed in 0 1 2; do ship trainers "$OUTDIR/double" --subject align-uniform --seed $seed; done
} > "$OUTDIR/double.txt" 2>&1 &
for seed in 0 1 2; do
  {
    mkdir -p "$OUTDIR/network$seed"
    for version in 1 sgd-double sgd; do
      ship train "$OUTDIR/network$seed" --network wrn-10-2 --subject $version --seed $seed
    done
  } > "$OUTDIR/network$seed.txt" 2>&1 &
done
wait
# One folder, as `python -m models.sam.ship write FOLDER --network wrn-10-2` takes it.
for table in proof trainers classifiers; do cat "$OUTDIR"/*/$table.jsonl > "$OUTDIR/$table.jsonl" 2>/dev/null; done
for version in 1 sgd; do cp -r "$OUTDIR/network0/wrn-10-2-$version-0" "$OUTDIR/"; done
