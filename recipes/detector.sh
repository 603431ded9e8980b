#!/usr/bin/env bash
# How the heads that come with recur were trained: recipes/detector.sh DATA [WORK]
#
# DATA holds flickr8k/ (photographs with boxes of 44 classes, annotations.jsonl). They stand on the trunk of the captioner
# that comes with recur, which stays as it is. WORK takes the trunk's maps, about 2.5 GB. On one CPU core it takes about
# fifteen minutes; killed at any moment, the same call goes on where it was. The shipped detector's first 1,039 steps had the
# learning rates of --epochs 12; more epochs (40) are likely to find more.
set -euo pipefail
data="${1:?usage: recipes/detector.sh DATA [WORK]}"
work="${2:-heads.work}"
recur="${RECUR:-recur}"
mkdir -p "$work"

"$recur" train detect --data "$data/flickr8k" --share-trunk --alike man,woman,boy,girl,child,person \
  --nouns "zh=recipes/nouns_zh.json" --epochs 8 --seed 1 --resume \
  --data-name "Flickr8k with the boxes of Flickr30k Entities" \
  --terms "photographs: Flickr terms, research and education; boxes: Flickr30k Entities, non-commercial research and education" \
  --out "$work/detector"

"$recur" train classify --data "$data/flickr8k" --share-trunk --seed 1 --resume \
  --data-name "Flickr8k with the boxes of Flickr30k Entities" \
  --terms "photographs: Flickr terms, research and education; boxes: Flickr30k Entities, non-commercial research and education" \
  --out "$work/classifier"
