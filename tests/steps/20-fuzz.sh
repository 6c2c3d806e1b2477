#!/usr/bin/env bash
# usage: tests/steps/20-fuzz.sh     Runs each fuzz target for FUZZ_SECONDS, two at once.
#
# Targets are the tests in modules named `fuzz`. 5 s each unless FUZZ_SECONDS says otherwise; CI says 60. One that fails
# prints the input and the seed, with which BOLERO_RANDOM_SEED=... cargo test TARGET does the same again.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${FUZZ_SECONDS:-5}
at_once=2

programs=$(cargo test --locked --workspace --lib --no-run 2>&1 | tee /dev/stderr | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
[ -n "$programs" ] || { echo "no test program was built" >&2; exit 1; }

targets=$(for program in $programs; do
  "$program" --list --format terse | sed -n "s|^\(.*\bfuzz::.*\): test$|$program \1|p"
done)
[ -n "$targets" ] || { echo "there is no fuzz target" >&2; exit 1; }
echo "$(wc -l <<<"$targets") targets, $seconds s each, $at_once at once"

one() { # PROGRAM TARGET
  local log
  log=$(mktemp)
  if BOLERO_RANDOM_TEST_TIME_MS=$((seconds * 1000)) "$1" --exact "$2" >"$log" 2>&1; then
    echo "$2: ok"
  else
    echo "$2: FAILED"
    cat "$log"
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}
export -f one
export seconds
xargs -P "$at_once" -L 1 bash -c 'one "$@"' one <<<"$targets"
