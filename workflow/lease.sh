#!/usr/bin/env bash
# A GPU that is lent for minutes: trains the list of replication/training/lease.py and packs what comes back.
#
#   CHSLIB_COMMIT=<commit> OUT=<folder> workflow/lease.sh SLICES MINUTES [RUN ...]
#
# SLICES: folder of a slice store. Set CHSLIB_COMMIT where no .git travelled along, so that records name the code.
# Records, predictions and weights that are in lease/ count as done: predictions of a first stage, put there as
# lease/runs/<profile>/<run>/masks.npz with its record, feed a second stage without training the first again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
slices=$1 minutes=$2
shift 2
: "${CHSLIB_COMMIT:=$(git rev-parse HEAD)}" "${OUT:=lease/out}" "${PROFILE:=paper}"
export CHSLIB_COMMIT PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$PWD/lease/inductor}"
python3 -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU")'
exec python3 -m replication.training.lease --slices "$slices" --profile "$PROFILE" --minutes "$minutes" --out "$OUT" ${1:+--names "$@"}
