#!/bin/bash
# Makes, on one GPU, the generators and the adaptations of robust-ot's proof at full length (about 8 minutes): rows,
# traces, samples and weights under $OUTDIR. Then: python -m models.robust_ot.ship $OUTDIR/gan-0 $OUTDIR/gan-1 $OUTDIR/gan-2,
# and $OUTDIR/adaptation/rows.json to models/robust_ot/weights/adaptation.json. BUDGET_S bounds the seconds of training.
# Nobody has run it yet: the code for CUDA is tested by it first.
set -u
cd "$(dirname "$0")/../.." || exit 1
export PYTHONPATH=$PWD OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
budget=${BUDGET_S:-470}
mkdir -p "$OUTDIR"
python3 -m pytest -q tests/unit/robust_ot/test_cuda.py tests/unit/otdd/test_cuda.py || exit 1
for seed in 0 1 2; do
  python3 -m models.robust_ot.gan_trainings "$OUTDIR/gan-$seed" --cells robust plain wide discrete clean-robust clean-plain \
    --seeds $seed --steps 60000 --seconds $((budget - 50)) --device cuda > "$OUTDIR/gan-$seed.txt" 2>&1 &
done
timeout "$budget" python3 -m models.robust_ot.adaptation_proof "$OUTDIR/adaptation" --steps 6000 --seeds 5 --device cuda \
  > "$OUTDIR/adaptation.txt" 2>&1 &
wait
