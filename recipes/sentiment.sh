#!/usr/bin/env bash
# How the sentiment model that comes with recur is trained: recipes/sentiment.sh DATA [WORK]
#
# DATA holds imdb_train.jsonl.xz, sst2/{train,dev}.tsv and chnsenticorp_train.jsonl.xz. It takes one CPU core about
# twenty minutes; killed at any moment, the same call goes on where it was.
set -euo pipefail
data="${1:?usage: recipes/sentiment.sh DATA [WORK]}"
work="${2:-sentiment.work}"
recur="${RECUR:-recur}"
mkdir -p "$work"
export OMP_NUM_THREADS=1

"$recur" train sentiment \
  --data "$data/imdb_train.jsonl.xz" "$data/sst2/train.tsv" "$data/chnsenticorp_train.jsonl.xz" \
  --hidden 64 --embedding 64 --epochs 3 --min-count 5 --seed 1 --resume \
  --data-name "IMDB reviews (25,000, one in ten held out), SST-2 sentences (train split; dev held out), ChnSentiCorp hotel reviews (one in ten held out)" \
  --terms "none stated by the sources" --out "$work/sentiment"

# The one that comes with recur was made in two steps: its network by this command, before the linear model was fitted as it
# is now; then, from that model, the linear model and the calibration alone, which takes two minutes:
#   recur train sentiment --data (the same) --init sentiment --epochs 0 --seed 1 --out "$work/again"
