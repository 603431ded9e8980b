#!/usr/bin/env bash
# How the model for stories that comes with recur is trained: recipes/answer.sh DATA [WORK]
#
# DATA holds babi_en_10k.tar.xz. It takes one CPU core about ten minutes. Killed at any moment, the same
# call goes on where it was.
set -euo pipefail
data="${1:?usage: recipes/answer.sh DATA [WORK]}"
work="${2:-answer.work}"
recur="${RECUR:-recur}"
mkdir -p "$work"
export OMP_NUM_THREADS=1

"$recur" train answer --data "$data/babi_en_10k.tar.xz" --epochs 20 --seed 1 --resume \
  --data-name "bAbI tasks, English, 10,000 questions each (all but task 3; train; valid to choose the epoch)" \
  --terms "CC BY 3.0" --out "$work/babi"

# The reader of passages; about 25 minutes.
"$recur" train span --data "$data/squad_part_train.jsonl.xz" "$data"/xquad/xquad.{es,zh,de}.json.xz --epochs 8 --seed 1 \
  --resume --data-name "a part of SQuAD v1.1 (3,843 questions) and XQuAD in Spanish, Chinese and German" \
  --terms "CC BY-SA 4.0" --out "$work/reader"
