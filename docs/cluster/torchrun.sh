#!/bin/bash
# One machine, all of its GPUs: processes pull cases from each other's store. Restarted, it goes on.
#   bash torchrun.sh IMAGES RUN OUT
set -euo pipefail
torchrun --nproc-per-node "${PROCESSES:-gpu}" --max-restarts 3 -m medsegdiff segment "$1" --model "$2" --out "$3" --resume "${@:4}"
