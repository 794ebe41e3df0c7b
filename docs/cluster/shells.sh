#!/bin/bash
# Plain shells, here or on machines that see one folder: fixed parts, no word between processes.
#   PARTS=4 bash shells.sh IMAGES RUN OUT
set -uo pipefail
parts=${PARTS:-4} code=0
for part in $(seq "$parts"); do
    medsegdiff segment "$1" --model "$2" --out "$3" --part "$part/$parts" "${@:4}" & # ssh host$part medsegdiff …
done
for job in $(jobs -p); do wait "$job" || code=$?; done
medsegdiff collect "$3" || code=$?
exit "$code"
