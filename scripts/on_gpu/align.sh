#!/bin/bash
# Makes alignment and uniformity's proof with five times the steps, two larger trainings of the shipped encoder and the text version.
# Needs a CUDA device, Fashion-MNIST and package-descriptions (`deepnight data list`); run at the root of the repository with
# OUTDIR, an empty folder for what is made, and optionally BUDGET_S, seconds after which what runs is ended (default 3600).
set -u
export DEEPNIGHT_DEVICE=cuda OMP_NUM_THREADS=2
LIMIT="timeout ${BUDGET_S:-3600}"
deepnight() { $LIMIT python3 -c "from service.cli import main; main()" "$@"; }

$LIMIT python3 -m pytest -q -p no:cacheprovider tests/unit/align_uniform/test_cuda.py > "$OUTDIR/cuda.log" 2>&1
$LIMIT python3 -m models.align_uniform.baselines --out "$OUTDIR/runs" --folder "$OUTDIR/proof" --device cuda \
  --longer 5 --processes 2 --threads 4 > "$OUTDIR/baselines.log" 2>&1 &
for variant in "flip=0.0" "flip=0.5"; do
  deepnight train align-uniform --dataset fashion-mnist --set epochs=100 --set batch_size=512 --set "$variant" \
    --out "$OUTDIR/image-$variant" > "$OUTDIR/image-$variant.log" 2>&1 &
done
(deepnight train align-uniform --dataset package-sections --preset text --set epochs=10 --out "$OUTDIR/text" &&
  deepnight evaluate align-uniform --checkpoint "$OUTDIR/text/checkpoint" --out "$OUTDIR/text-proof" --write) > "$OUTDIR/text.log" 2>&1 &
wait
# To ship: copy proof/ over models/align_uniform/weights/proof, choose a training by its held-out losses and a probe on
# training pictures, `python -m models.align_uniform.shipping CHECKPOINT`, then `deepnight evaluate align-uniform --write`.
