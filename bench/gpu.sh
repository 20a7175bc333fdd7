#!/usr/bin/env bash
# GPU measurements and the real study for the paper's backbones, unattended, in parts of under ten minutes.
#
#   bench/gpu.sh            every part that is not done yet, one after the other
#   bench/gpu.sh next       the next one only, for a machine that is lent ten minutes at a time
#   bench/gpu.sh list       the parts, and which are done
#
# A part that its time runs out on is taken up by the next call: training goes on from its last state (07b's too), a bench starts over.
# Figures go to $OUT (results/gpu): one JSON file a bench, study.json with all metrics, the report, and hardware.json.
# Try it without a GPU: BACKBONES=sarclip-mini STEPS=2 PROFILE=mini bench/gpu.sh
set -euo pipefail
cd "$(dirname "$0")/.."

BACKBONES=${BACKBONES:-RN50 ViT-B-32 ViT-L-14}    # OpenCLIP names
INIT=${INIT:-stage1}                              # what stage 2 starts from
PROFILE=${PROFILE:-real}                          # a file in profiles/; real needs the archives in $SARCLIP_DATA
STEPS=${STEPS:-}                                  # stop each training after so many batches; empty: the recipe's epochs
BATCH=${BATCH:-}                                  # images a batch; empty: the recipe's
SECONDS_A_PART=${SECONDS_A_PART:-570}
OUT=${OUT:-results/gpu}
PYTHON=${PYTHON:-$(if [ -x .venv/bin/python ]; then echo .venv/bin/python; else echo python3; fi)}
export SARCLIP_RUNS=${SARCLIP_RUNS:-$PWD/runs/gpu} PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 MPLBACKEND=Agg
STATE=$SARCLIP_RUNS/parts
mkdir -p "$OUT" "$STATE"

parts() {    # one a line, in the order in which they need each other
  echo check
  for b in $BACKBONES; do echo "bench_train $b"; done
  echo bench_features
  echo "study 00_data"
  echo "study 01_build_dataset"
  for b in $BACKBONES; do
    for n in 02_train_stage1 03_train_stage2 04_eval_retrieval 05_eval_recognition 06_ablations 07_explore 07b_protocol; do echo "study $n $b"; done
  done
  echo report
}

check() {    # before anything long: is everything there, and on what does this run?
  "$PYTHON" - "$OUT/hardware.json" <<'PY'
import importlib.metadata, json, sys
import torch
import sarclip.training.train, open_clip_train.data, papermill    # noqa: E401,F401  in this order; each says by itself what is missing
from sarclip.core.hardware import hardware_name
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
found = {"device": hardware_name(device), "cuda": torch.version.cuda, "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1) if device.type == "cuda" else None,
         "versions": {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "open_clip_torch")}}
open(sys.argv[1], "w").write(json.dumps(found, indent=1) + "\n")
print(found)
PY
}

bench() {    # name of the result, script, options: the script's last line is its figures
  local name=$1 script=$2
  shift 2
  "$PYTHON" "bench/$script.py" "$@" | tee "$STATE/$name.log"
  tail -n 1 "$STATE/$name.log" > "$OUT/$name.json.part"
  mv "$OUT/$name.json.part" "$OUT/$name.json"
}

bench_train() {    # ours against OpenCLIP's trainer on the GPU; on the CPU only as far as a short part allows
  local sizes=(--backbones sarclip-mini --batch 32 --steps 3 --rounds 1 --agree-steps 0 --memory-batch 0)
  if [ -n "$STEPS" ]; then sizes=(--backbones "$1" --batch 8 --gpu-batch 8 --steps "$((STEPS + 1))" --gpu-steps "$((STEPS + 1))" --rounds 1 --agree-steps 0 --memory-batch 0); fi
  bench "train_vs_openclip_$1" train_vs_openclip "${sizes[@]}" --gpu-backbones "$1"
}

bench_features() { if [ -n "$STEPS" ]; then bench feature_extraction feature_extraction --quick; else bench feature_extraction feature_extraction; fi; }

study() {    # one numbered notebook, with its section of the profile
  local notebook=$1 backbone=${2:-} folder=$SARCLIP_RUNS/$PROFILE/data/$1 options=(-p profile "$PROFILE")
  if [ -n "$backbone" ]; then
    folder=$SARCLIP_RUNS/$PROFILE/$backbone/$INIT/$notebook
    options+=(-p backbone "$backbone" -p init "$INIT")
    if [ -n "$STEPS" ]; then options+=(-p max_steps "$STEPS"); fi
    if [ -n "$BATCH" ]; then options+=(-p batch_size "$BATCH"); fi
  fi
  mkdir -p "$folder"
  "$PYTHON" -m papermill --no-progress-bar --log-output --cwd nbs "nbs/$notebook.ipynb" "$folder/$notebook.ipynb" "${options[@]}"
}

report() {
  study 08_report
  "$PYTHON" - "$SARCLIP_RUNS/$PROFILE" "$OUT/study.json" <<'PY'
import json, sys
from pathlib import Path
run, out = map(Path, sys.argv[1:])
metrics = {str(path.parent.relative_to(run)): json.loads(path.read_text()) for path in sorted(run.rglob("metrics.json"))}
out.write_text(json.dumps(metrics, indent=1) + "\n")
print(f"{len(metrics)} steps of the study in {out}")
PY
  cp "$SARCLIP_RUNS/$PROFILE/report.html" "$OUT/report.html"
}

done_mark() { echo "$STATE/$(tr ' ' '_' <<< "$*").done"; }

run_part() {    # in a shell of its own, under the time limit; 124 is "out of time"
  local status=0
  echo "▶ $*"
  timeout --kill-after=20 "$SECONDS_A_PART" bash "$0" part "$@" || status=$?
  if [ "$status" -eq 0 ]; then touch "$(done_mark "$@")"; fi
  return "$status"
}

case ${1:-all} in
  part) shift; "$@" ;;
  list) parts | while read -r -a words; do if [ -e "$(done_mark "${words[@]}")" ]; then echo "done  ${words[*]}"; else echo "to do ${words[*]}"; fi; done ;;
  next | all)
    mapfile -t all < <(parts)
    for part in "${all[@]}"; do
      read -r -a words <<< "$part"
      if [ -e "$(done_mark "${words[@]}")" ]; then continue; fi
      tries=0
      until run_part "${words[@]}"; do
        status=$?
        tries=$((tries + 1))
        if [ "${1:-all}" = next ] || [ "$status" -ne 124 ] || [ "$tries" -ge 6 ]; then
          echo "✗ $part ended with status $status (124: out of time); call again to go on from there" >&2
          exit "$status"
        fi
      done
      if [ "${1:-all}" = next ]; then exit 0; fi
    done
    echo "all parts are done; figures in $OUT" ;;
  *) echo "unknown word '$1': all, next or list" >&2; exit 2 ;;
esac
