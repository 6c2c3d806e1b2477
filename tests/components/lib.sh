# Sourced by the scripts beside it: where things are, and what a node is.
#
# A node is a folder STATE/NAME with: run (the command that becomes the server), probe (the words that probe.py needs to
# tell whether it is ready), log, pid, and started (the process's start time, so that a pid given to another process
# later is never taken for the node).

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
parts=${REEDI_TEST_COMPONENTS:-$root/.cache/components}
state=${REEDI_TEST_STATE:-$root/.cache/components-state}
python=$parts/py/bin/python

die() { printf 'components: %s\n' "$*" >&2; exit 1; }

started_at() { # PID: prints the start time of a living process
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name in parentheses may have spaces: count the fields after it, of which the first is the state.
  stat=${stat##*) }
  # shellcheck disable=SC2086
  set -- $stat
  # A killed process is a zombie as soon as its first thread has ended. Its ports are its own until the last one has.
  { [ "$1" != Z ] || [ "${18}" -gt 1 ]; } && [ "$1" != X ] && printf '%s' "${20}"
}

alive() { # NAME
  local pid now
  pid=$(cat "$state/$1/pid" 2>/dev/null) && now=$(started_at "$pid") && [ "$now" = "$(cat "$state/$1/started")" ]
}

launch() { # NAME: starts the node in a session of its own, so that Ctrl-C in the terminal is not a fault of the server
  setsid "$state/$1/run" >>"$state/$1/log" 2>&1 </dev/null &
  printf '%s' "$!" >"$state/$1/pid"
  started_at "$!" >"$state/$1/started" || true
  # Else the shell would report each end of a node that is killed.
  disown "$!"
}

signal() { # SIGNAL NAME
  alive "$2" && kill "-$1" "$(cat "$state/$2/pid")" 2>/dev/null
}

wait_gone() { # NAME SECONDS
  local until=$((SECONDS + $2))
  while alive "$1"; do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 0.05
  done
}

wait_ready() { # NAME [alone]: alone asks the node only, not whether the others are with it
  (
    # Paths in the probe's words are relative to the node's folder.
    cd "$state/$1"
    # shellcheck disable=SC2046
    "$python" "$here/probe.py" wait --pid "$(cat pid)" --seconds "${REEDI_TEST_START_SECONDS:-180}" ${2:+--alone} $(cat probe)
  )
}

node_names() {
  local run
  for run in "$state"/*/run; do
    [ -e "$run" ] && basename "$(dirname "$run")"
  done
  return 0
}
