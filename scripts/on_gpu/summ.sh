#!/bin/bash
# Makes the weights and figures of summarize-feedback with the recipe "gpu", sized for eight minutes on one H200, not run yet:
# three supervised policies at once (the best on texts that none has seen is kept), two reward models (the one that
# agrees most), PPO with six penalties and three seeds in four processes, baselines, a learning curve, the figures.
#
#   OUTDIR=/some/folder BUDGET_S=470 bash scripts/on_gpu/summ.sh
#
# Run from the root of the repository, with the package descriptions in place (scripts/package_descriptions.py).
# Each chain of processes works on its own copy of models/, so that none reads weights that another is writing.
set -u
: "${OUTDIR:?a folder for the results}" "${BUDGET_S:=470}"
export OMP_NUM_THREADS=2 DEEPNIGHT_HOME="${DEEPNIGHT_HOME:-$PWD/.deepnight}"
trees=$(mktemp -d)
start=$SECONDS

left() { echo $((BUDGET_S - SECONDS + start)); }
tree() { mkdir -p "$trees/$1" && cp -r "${2:-$PWD}/models" "$trees/$1/"; }
ship() { # tree, seconds at most, arguments
  local folder=$trees/$1 seconds=$2
  shift 2
  (cd "$folder" && PYTHONPATH=$folder timeout "$seconds" python3 -u -m models.summarize_feedback.ship "$@" --recipe gpu \
    --folder "$folder/runs") >>"$OUTDIR/$(basename "$folder").log" 2>&1
}
best() { # stage, trees: the one whose held-out figure is best
  python3 - "$trees" "$@" <<'PYTHON'
import json, sys
from pathlib import Path
root, stage, *names = sys.argv[1:]
found = {}
for name in names:
    file = Path(root, name, "models/summarize_feedback/weights/figures.json")
    figures = {f["name"]: f["value"] for f in json.loads(file.read_text())["figures"]}
    value = figures.get("perplexity of a reference token" if stage == "sft" else "agreement with the label")
    if value is not None:
        found[name] = -value if stage == "sft" else value
print(max(found, key=found.get))
PYTHON
}

for dropout in 0.1 0.2 0.3; do
  tree "sft-$dropout"
  ship "sft-$dropout" $((BUDGET_S / 3)) sft --dropout $dropout &
done
wait
sft=$(best sft sft-0.1 sft-0.2 sft-0.3)
for rate in 0.0003 0.001; do
  tree "reward-$rate" "$trees/$sft"
  ship "reward-$rate" $((BUDGET_S / 5)) reward --learning-rate $rate &
done
wait
judge=$trees/$(best reward reward-0.0003 reward-0.001)

chain() { # name, then penalty:seed:rate, one run of PPO after another
  local name=$1 run beta seed rate
  shift
  tree "$name" "$judge"
  for run in "$@"; do
    IFS=: read -r beta seed rate <<<"$run"
    ship "$name" $(($(left) - 70)) ppo --rows "$OUTDIR/$name.jsonl" --beta "$beta" --seed "$seed" \
      --learning-rate "$rate" --keep
    cp "$trees/$name/models/summarize_feedback/weights/weights.safetensors" "$trees/ppo-$beta-$seed.safetensors"
    cp "$trees/$name/models/summarize_feedback/weights/config.json" "$trees/ppo-$beta-$seed.json"
  done
}
chain ppo-a 0.1:0:1e-4 0.1:1:1e-4 0.1:2:1e-4 &
chain ppo-b 0.05:0:1e-4 0.05:1:1e-4 0.05:2:1e-4 &
chain ppo-c 0:0:1e-4 0:1:3e-4 0.02:0:1e-4 &
chain ppo-d 0.4:0:1e-4 0.2:0:1e-4 &
(
  tree others "$judge"
  ship others $(($(left) - 70)) best-of-n --rows "$OUTDIR/best.jsonl"
  ship others $(($(left) - 70)) baselines --rows "$OUTDIR/baselines.jsonl"
  ship others $(($(left) - 70)) curve --rows "$OUTDIR/curve.jsonl"
) &
wait

# the penalty with three seeds whose quality on the validation texts is higher ships, seed 0
beta=$(cat "$OUTDIR"/ppo-[ab].jsonl | python3 -c '
import json, sys
last = {(r["beta"], r["seed"]): r["quality G"] for r in map(json.loads, sys.stdin)}
betas = {beta for beta, _ in last}
print(max(betas, key=lambda beta: sum(q for (b, _), q in last.items() if b == beta)))')
tree final "$judge"
weights=$trees/final/models/summarize_feedback/weights
cp "$trees/ppo-$beta-0.safetensors" "$weights/weights.safetensors"
cp "$trees/ppo-$beta-0.json" "$weights/config.json"
ship final "$(left)" figures --rows "$OUTDIR"/*.jsonl
cp -r "$weights" "$OUTDIR/"
