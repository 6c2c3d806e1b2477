#!/usr/bin/env bash
# usage: tests/steps/40-chaos.sh     The short form of `make chaos`: CHAOS_SECONDS (120) of the faults that CHAOS_SEED (1)
# chooses: the same ones each time, so that what a run says is about what was changed.
#
# Real processes on components of its own in .cache/chaos; `make chaos` says how to replay what it finds. It prints its
# report and fails where anything acknowledged was lost, doubled or out of order, or did not work again within 60 s.
# All of it ends when this script does, and within 15 minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${CHAOS_SECONDS:-120}
seed=${CHAOS_SEED:-1}
built=${CARGO_TARGET_DIR:-target}/simulate
folder=.cache/chaos
make chaos-programs

status=0 chaos=""
end() {
  [ -z "$chaos" ] || kill -TERM "$chaos" 2>/dev/null || true
  [ ! -e "$folder/parts/.components" ] || tests/components/stop.sh --state "$folder/parts" || true
}
trap end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Starting takes a minute, or several on a busy machine; settling and reading history at most three.
timeout --kill-after=20 "$((seconds + 780))" "$built/reedi-chaos" --seconds "$seconds" --seed "$seed" \
  --reedi "$built/reedi" --components tests/components --folder "$folder" &
chaos=$!
wait "$chaos" || status=$?
chaos=""
[ "$status" != 124 ] || echo "it did not end within $((seconds + 780)) s" >&2
exit "$status"
