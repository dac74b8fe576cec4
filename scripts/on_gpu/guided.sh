#!/bin/bash
# Makes longer-trained versions of guided-diffusion and the proof of each at 5,000 samples a cell (plan `full`) on one GPU.
# OUTDIR: folder of the results (default runs/guided); BUDGET_S: seconds until it ends (default 470; what is measured
# by then is kept, and the same command goes on). STEPS, BATCH: updates of the denoisers and pictures an update.
# From the root of the repository. Afterwards look at classes.png, compare figures.json with the shipped one, and
# `python3 -m models.guided_diffusion.ship write $OUTDIR/1` (or digits) puts a better version in place.
set -u
OUTDIR=${OUTDIR:-runs/guided} BUDGET_S=${BUDGET_S:-470} STEPS=${STEPS:-12000} BATCH=${BATCH:-128}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} PYTHONPATH=${PYTHONPATH:-$PWD}
ship() { timeout "$(left 0)" python3 -m models.guided_diffusion.ship "$@"; }
left() { echo $((BUDGET_S - SECONDS > $1 ? BUDGET_S - SECONDS - $1 : 1)); } # seconds but the last $1
longer=(--set "steps=$STEPS" --set "batch_size=$BATCH" --set classifier_steps=4000)

mkdir -p "$OUTDIR/shipped/checkpoint" "$OUTDIR/log"
cp models/guided_diffusion/weights/*.* "$OUTDIR/shipped/checkpoint/"
{ # the main version, then half of its cells
  [ -e "$OUTDIR/1/checkpoint/config.json" ] || ship train "$OUTDIR/1" "${longer[@]}"
  ship measure "$OUTDIR/1" --groups guidance conditional --share 0/2 --seconds "$(left 60)"
} >"$OUTDIR/log/main.txt" 2>&1 &
main=$!
{ # its twin of the mean error alone, then the other half
  ship baseline "$OUTDIR/1" --which simple-twin "${longer[@]}"
  while kill -0 $main 2>/dev/null && [ ! -e "$OUTDIR/1/checkpoint/config.json" ]; do sleep 1; done
  ship measure "$OUTDIR/1" --groups guidance conditional --share 1/2 --seconds "$(left 60)"
} >"$OUTDIR/log/twin.txt" 2>&1 &
{ # a guide of clean pictures, then the guides and the samplers by steps
  ship baseline "$OUTDIR/1" --which clean-guide "${longer[@]}"
  while kill -0 $main 2>/dev/null && [ ! -e "$OUTDIR/1/checkpoint/config.json" ]; do sleep 1; done
  ship measure "$OUTDIR/1" --groups "clean guide" "blind guide" "gradient at" steps --seconds "$(left 60)"
} >"$OUTDIR/log/guides.txt" 2>&1 &
{ # the digits, their cells and figures
  [ -e "$OUTDIR/digits/checkpoint/config.json" ] || ship train "$OUTDIR/digits" --version digits "${longer[@]}"
  ship measure "$OUTDIR/digits" --seconds "$(left 60)"
  ship prove "$OUTDIR/digits"
} >"$OUTDIR/log/digits.txt" 2>&1 &
{ # the shipped version, beside which the new one is judged
  ship measure "$OUTDIR/shipped" --groups guidance conditional --seconds "$(left 60)"
  ship prove "$OUTDIR/shipped"
} >"$OUTDIR/log/shipped.txt" 2>&1 &
wait
ship prove "$OUTDIR/1" >"$OUTDIR/log/prove.txt" 2>&1
tail -n 3 "$OUTDIR"/log/*.txt
