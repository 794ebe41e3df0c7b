#!/bin/bash
# Training on several machines, all of their GPUs: the same line on each. If a process dies, all of them begin again at
# the last checkpoint (train.save_every=N sets how often there is one). RUN lies where all machines see it.
#   FIRST=node1 MACHINES=2 bash train_machines.sh DATA RUN --preset v2
set -euo pipefail
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # else a second start waits at addresses of the first (PyTorch 2.13)
torchrun --nnodes "${MACHINES:-2}" --nproc-per-node "${PROCESSES:-gpu}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$FIRST:${PORT:-29400}" --rdzv-id "${NAME:-medsegdiff}" \
    -m medsegdiff train "$1" --out "$2" --auto-resume "${@:3}"
