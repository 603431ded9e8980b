#!/usr/bin/env bash
# How the model for frames that comes with recur is trained, and how 50 Salads is measured: recipes/frames.sh DATA [WORK]
#
# DATA holds donkeycar_tub.tar.gz and 50salads_mid_scores.npz. The model `driving` reads the trunk of the captioner that
# comes with recur and is tied to it: after another captioner is put in its place, run this again. It takes one CPU core
# about three minutes; killed at any moment, the same call goes on where it was.
set -euo pipefail
data="${1:?usage: recipes/frames.sh DATA [WORK]}"
work="${2:-frames.work}"
recur="${RECUR:-recur}"
mkdir -p "$work"
export OMP_NUM_THREADS=1

# The seed is the first that is best where seeds 1 to 5 learn the first 600 frames and label the next 200.
"$recur" train frames --data "$data/donkeycar_tub.tar.gz" --head softmax --hidden 16 --crop 128 --mirror left:right \
  --epochs 60 --smooth 3 --seed 3 --resume \
  --data-name "1,000 frames of one drive of a camera car; left, straight, right by the steering angle" --terms MIT \
  --out "$work/driving"
# What it is compared with: the same features, each frame alone; its options were chosen in the same way.
"$recur" train frames --data "$data/donkeycar_tub.tar.gz" --cell none --reduced 16 --crop 128 --mirror left:right \
  --epochs 60 --smooth 6 --seed 3 --resume --out "$work/framewise"
"$recur" evaluate frames --data "$data/donkeycar_tub.tar.gz" --model "$work/driving"
"$recur" evaluate frames --data "$data/donkeycar_tub.tar.gz" --model "$work/framewise"

for fold in split1 split2 split3 split4 split5; do
  "$recur" train frames --data "$data/50salads_mid_scores.npz" --fold "$fold" --hidden 64 --epochs 30 --smooth 1 \
    --seed 1 --resume --terms "the dataset's own" --out "$work/$fold"
done
"$recur" evaluate frames --data "$data/50salads_mid_scores.npz" --model "$work"/split[1-5]
