#!/usr/bin/env bash
# usage: node.sh [--state DIR] kill NAME       kill -9
#        node.sh [--state DIR] stop NAME       hold it (SIGSTOP); cont NAME lets it go on
#        node.sh [--state DIR] restart NAME    ask it to end if it runs, start it on its data, wait until it answers
#        node.sh [--state DIR] wait NAME       wait until it answers and is with the others again
#        node.sh [--state DIR] pid NAME        print its process id
#        node.sh [--state DIR] list            print the names, one a line: nats-1, cassandra-3, redis-1, valkey-2, ...
set -euo pipefail
. "$(dirname "$0")/lib.sh"
if [ "${1:-}" = --state ]; then
  state=$(realpath -m -- "${2:?--state needs a folder}")
  shift 2
fi
action=${1:-help} name=${2:-}

known() {
  [ -n "$name" ] && [ -e "$state/$name/run" ] || die "no node named '$name'; there are: $(node_names | grep -v '^keeper$' | tr '\n' ' ')"
}

case $action in
  list) node_names | grep -v '^keeper$' ;;
  pid) known; alive "$name" || die "$name is not running"; cat "$state/$name/pid"; echo ;;
  kill) known; signal KILL "$name" || die "$name is not running"; wait_gone "$name" 20 || die "$name does not end" ;;
  stop) known; signal STOP "$name" || die "$name is not running" ;;
  cont) known; signal CONT "$name" || die "$name is not running" ;;
  restart)
    known
    if signal TERM "$name"; then
      signal CONT "$name" || true
      wait_gone "$name" 30 || { signal KILL "$name" || true; wait_gone "$name" 20; } || die "$name does not end"
    fi
    launch "$name"
    wait_ready "$name" alone || { tail -n 30 "$state/$name/log" >&2; die "$name did not come back"; }
    ;;
  wait) known; wait_ready "$name" || die "$name is not with the others" ;;
  *) sed -n '2,/^set /{s/^# \{0,1\}//;/^set /!p}' "$0"; exit 2 ;;
esac
