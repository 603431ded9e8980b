#!/usr/bin/env bash
# How the translators that come with recur are trained: recipes/translator.sh DATA [WORK]
#
# DATA holds multi30k/{train,val}.{en,de}.gz and es_zh/{tatoeba,bible,godot}.tsv.xz. Killed at any moment, the same call
# goes on where it was.
set -euo pipefail
data="${1:?usage: recipes/translator.sh DATA [WORK]}"
work="${2:-translator.work}"
recur="${RECUR:-recur}"
mkdir -p "$work"
export OMP_NUM_THREADS=1

"$recur" train translate --data "$data/multi30k/train" --dev "$data/multi30k/val" \
  --from en --to de --both --pieces 4000 --embedding 160 --hidden 256 --encoder 160 --layers 2 \
  --dropout 0.3 --epochs 16 --seed 1 --resume \
  --data-name "Multi30k, descriptions of photographs (train; val held out)" --terms "none stated by the source" \
  --out "$work/en-de"

# What is wanted are everyday sentences; a Bible and the messages of a program teach the words and how to look at the
# source before those have the last word.
"$recur" train translate --data "$data/es_zh/tatoeba.tsv.xz" --also "$data/es_zh/bible.tsv.xz" "$data/es_zh/godot.tsv.xz" \
  --repeat 3 --from es --to zh --pieces 6000 --embedding 128 --hidden 192 --encoder 128 --layers 2 --dropout 0.3 \
  --word-dropout 0.1 --epochs 8 --seed 1 --resume \
  --data-name "Tatoeba, everyday sentences (one in thirty held out), after a modern Chinese and an old Spanish Bible, verse by verse, and the Godot editor's messages" \
  --terms "Tatoeba CC BY 2.0; Bible: unclear; Godot MIT" --out "$work/es-zh"
