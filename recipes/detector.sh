#!/usr/bin/env bash
# How the heads that come with recur were trained: recipes/detector.sh DATA [WORK]
#
# DATA holds flickr8k/ (photographs with boxes of 44 classes, annotations.jsonl). They stand on the trunk of the captioner
# that comes with recur, which stays as it is. WORK takes the trunk's maps, about 2.4 GB, once. Killed at any moment, the
# same call goes on where it was. An epoch of the detector takes about a minute of one CPU core.
#
# The detector that is shipped came of two courses: 8 epochs from nothing (with AdamW alone and all pictures equally often:
# the trainer before commit 05c043d), then the one that stands here, whose --init was that detector, as of commit bb57338;
# its bundle was renamed from A. From nothing, leave --init out and give it 12 epochs. The loss was still falling: longer
# courses find more.
set -euo pipefail
data="${1:?usage: recipes/detector.sh DATA [WORK]}"
work="${2:-heads.work}"
recur="${RECUR:-recur}"
mkdir -p "$work"

"$recur" train detect --data "$data/flickr8k" --share-trunk --alike man,woman,boy,girl,child,person \
  --nouns "zh=recipes/nouns_zh.json" --init detector --epochs 4 --seed 1 --resume \
  --data-name "Flickr8k with the boxes of Flickr30k Entities" \
  --terms "photographs: Flickr terms, research and education; boxes: Flickr30k Entities, non-commercial research and education" \
  --out "$work/A"

"$recur" train classify --data "$data/flickr8k" --share-trunk --seed 1 --resume \
  --data-name "Flickr8k with the boxes of Flickr30k Entities" \
  --terms "photographs: Flickr terms, research and education; boxes: Flickr30k Entities, non-commercial research and education" \
  --out "$work/classifier"
