#!/bin/bash
# Makes AUM's proof at 20,000 and 60,000 samples: rows of models.aum.ship in $OUTDIR within $BUDGET_S seconds of one GPU.
# Store them with: cat $OUTDIR/*.jsonl > rows.jsonl; python -m models.aum.ship figures rows.jsonl
set -u
export OMP_NUM_THREADS=2
prove() {
    timeout "${BUDGET_S:-600}" python3 -m models.aum.ship proof "$OUTDIR/$1-$2.jsonl" \
        --data "$1" --samples "$2" --seeds $3 --device cuda > "$OUTDIR/$1-$2.txt" 2>&1
}
mkdir -p "$OUTDIR"
prove fashion-mnist 20000 "0 1 2" &
prove digits 8000 "0 1 2" &
prove fashion-mnist 60000 "0" &
wait
