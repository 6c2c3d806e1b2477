#!/usr/bin/env bash
# usage: stop.sh [--state DIR]     Ends every process that start.sh started there, and waits until they are gone.
# The logs and the data stay in DIR until the next start.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
while [ $# -gt 0 ]; do
  case $1 in
    --state) state=$(realpath -m -- "${2:?--state needs a folder}"); shift 2 ;;
    *) die "unknown argument $1; usage: stop.sh [--state DIR]" ;;
  esac
done

# Killed, not asked: the data is thrown away, and a node that is held by SIGSTOP would not hear.
stop_all() {
  local name
  for name in $(node_names); do
    # When the keeper's parent died, the keeper became this script.
    [ "$(cat "$state/$name/pid" 2>/dev/null)" = "$$" ] || signal KILL "$name" || true
  done
  for name in $(node_names); do
    [ "$(cat "$state/$name/pid" 2>/dev/null)" = "$$" ] || wait_gone "$name" 20 || die "$name does not end (pid $(cat "$state/$name/pid"))"
  done
}
stop_all
rm -f "$state/env" "$state/base"
