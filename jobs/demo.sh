#!/bin/bash
# From raw images to heat maps on this machine, in a few minutes. Results that exist already are used again.
#   bash jobs/demo.sh                 on drawn faces
#   bash jobs/demo.sh --images DIR    on your own images with UTKFace's names
# Further options: --count N (faces drawn) and --epochs N.
set -euo pipefail

usage() { sed -n '2,5s/^# \{0,1\}//p' "$0"; }
images='' count=2000 epochs=4
while [ $# -gt 0 ]; do
    case $1 in
    --images) images=${2:?--images needs a directory} ;;
    --count) count=${2:?--count needs a number} ;;
    --epochs) epochs=${2:?--epochs needs a number} ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
    esac
    shift 2
done
if [ -n "$images" ] && [ ! -d "$images" ]; then
    echo "demo: no directory $images: give the one with the images as --images" >&2
    exit 2
fi
[ -z "$images" ] || images=$(realpath "$images")
cd "$(dirname "$0")/.."

[ ! -f jobs/install.sh ] || bash jobs/install.sh
[ ! -f .venv/bin/activate ] || . .venv/bin/activate
# step N TEXT PATH: prints the step; false if PATH, its result, exists already.
step() {
    if [ -e "$3" ]; then
        printf '\n[%s/6] %s: %s exists and is used again\n' "$1" "$2" "$3"
        return 1
    fi
    printf '\n[%s/6] %s\n' "$1" "$2"
}

if [ -z "$images" ]; then
    name=demo images=data/demo-faces source=morph
    step 1 "draw $count faces" $images && shard-tools synthetic --out $images --count "$count" --size 64 --workers "$(nproc)"
else
    name=demo-$(basename "$images") source=utkface
    printf '\n[1/6] the images of %s\n' "$images"
fi
data=data/$name run=runs/$name
best=$run/checkpoints/best.pt

step 2 "pack them" "$data/manifest.json" && shard-tools pack $source --images "$images" --out "$data"

nodes=2 # or one, where there is one GPU: each process needs its own
[ "$(python -c 'import os; from jobs.machine import visible_gpus as gpus; print(len(gpus(os.environ)))')" != 1 ] || nodes=1
printf '\n[3/6] train SE-ResNet-50 with one process on each local node (--nodes %s)\n' $nodes
python -m hpcgender.launch --nodes $nodes -- train --data "$data" --name "$name" --resume --model se_resnet50 \
    --image-size 64 --output-stride 16 --batch-size 32 --lr 0.01 --warmup-epochs 0.5 --epochs "$epochs"

printf '\n[4/6] evaluate the best checkpoint\n'
hpcgender evaluate --checkpoint "$best" --data "$data" --split test

printf '\n[5/6] predict one image\n'
find "$images" -iname '*.jpg' | sort | tail -n 1 | xargs -d '\n' hpcgender predict --checkpoint "$best"

printf '\n[6/6] heat maps (--nodes %s)\n' $nodes
python -m hpcgender.launch --nodes $nodes -- cam --checkpoint "$best" --data "$data" --split test

cat <<END

Results:
  $images   the images
  $data   the shards and their manifest.json
  $run/metrics.jsonl   metrics of each epoch; curves: tensorboard --logdir runs
  $run/checkpoints   best.pt to use, last.pt to resume from
  $run/evaluations   metrics, and the prediction of each image
  $run/cams   heat maps; look at $run/cams/$name-test/sheet.png
END
