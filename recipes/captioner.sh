#!/usr/bin/env bash
# How the captioner that comes with recur was trained: recipes/captioner.sh DATA [WORK]
#
# DATA holds flickr8k/ (photographs with English and Chinese captions, annotations.jsonl), photos/ (photographs without
# captions) and teacher/ (a larger network as ONNX, for distillation only). WORK takes caches and checkpoints, about
# 10 GB. On 2 CPU cores it takes about four hours; killed at any moment, the same call goes on where it was.
set -euo pipefail
data="${1:?usage: recipes/captioner.sh DATA [WORK]}"
work="${2:-captioner.work}"
recur="${RECUR:-recur}"
mkdir -p "$work"

# 1. The CNN learns to see, from nothing: a larger network's maps of 11,091 pictures (dev pictures left out) are its targets.
"$recur" train trunk --data "$data/flickr8k" "$data/photos" --teacher "$data/teacher/mobilenet_v2_1.0_224.onnx" \
  --cache "$work/teacher" --out "$work/trunk.onnx" --epochs 54 --seed 1 --resume

# 2. Its head comes off; what is left starts the recurrent network. First that one alone, then both, then on CIDEr-D.
"$recur" train caption --data "$data/flickr8k" --encoder "$work/trunk.onnx" --finetune-encoder --cider 3 \
  --cell lstm --layers 2 --hidden 384 --epochs 12 --min-count 5 --seed 1 --resume \
  --data-name "Flickr8k with Flickr8k-CN captions; the encoder also saw 5,000 photographs without captions" \
  --terms "photographs: Flickr terms, research and education; captions as published with Flickr8k and Flickr8k-CN" \
  --out "$work/first"

# 3. Once more both together, while the larger network goes on teaching the CNN, and longer on CIDEr-D. At its end the
# encoder is put into 8-bit numbers. The committed bundle was made so from the one before it, under the name of that.
# Its search and confidence, which this chooses at its end, were chosen again later, its weights as they were:
# recur train calibrate --model captioner --data DATA/flickr8k --out captioner
"$recur" train caption --data "$data/flickr8k" --init "$work/first" --encoder "$work/first" --finetune-encoder \
  --teacher "$data/teacher/mobilenet_v2_1.0_224.onnx" --hidden 384 --epochs 9 --cider 7 --seed 2 --resume \
  --data-name "Flickr8k with Flickr8k-CN captions; the encoder also saw 5,000 photographs without captions" \
  --terms "photographs: Flickr terms, research and education; captions as published with Flickr8k and Flickr8k-CN" \
  --out "$work/captioner"
