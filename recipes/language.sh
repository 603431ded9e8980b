#!/usr/bin/env bash
# How the language models that come with recur were trained: recipes/language.sh DATA [WORK]
#
# DATA holds text/warpeace.txt.xz and text/tinyshakespeare.txt. The first model is where the second one starts: it knows
# how English is spelled, and Shakespeare alone is a small text. Killed at any moment, the same call goes on where it was.
set -euo pipefail
data="${1:?usage: recipes/language.sh DATA [WORK]}"
work="${2:-language.work}"
recur="${RECUR:-recur}"
mkdir -p "$work"

"$recur" train language --data "$data/text/warpeace.txt.xz" --hidden 512 --length 64 --epochs 2 --rate 0.005 --dropout 0.05 \
  --data-name "War and Peace (L. Tolstoy, translated by L. and A. Maude)" --terms "public domain" \
  --seed 1 --resume --out "$work/warandpeace"

"$recur" train language --data "$data/text/tinyshakespeare.txt" --hidden 512 --length 64 --epochs 6 --rate 0.004 \
  --dropout 0.2 --init "$work/warandpeace" --data-name "Tiny Shakespeare" --terms "public domain" \
  --seed 1 --resume --out "$work/shakespeare"
