#!/bin/sh
# The main job from end to end on the built-in Korean-English corpus: train, score, translate. Minutes on 2 cores.
#
#   make quickstart                  with the environment of the Makefile
#   sh recipes/quickstart.sh         in an environment where hf_nmt is installed
set -eu
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"

# train.py prints one line, the folder of the best model.
best=$(accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
    recipes/train.py --config quickstart)

python recipes/validate.py --config quickstart model="$best"

python recipes/translate.py --config quickstart model="$best" input=recipes/configs/translate/quickstart.ko

echo
echo "Everything of this run, with plots, metrics and log:  $(dirname "$best")"
echo "The model, for AutoModelForSeq2SeqLM and pipeline():  $best"
