#!/usr/bin/env bash
# usage: start.sh [--cassandra-nodes 1|3] [--secure] [--only KIND,..] [--parent PID] [--state DIR]
#
# Starts what install.sh installed, all at once, on free ports of 127.0.0.1 (Cassandra also .2 and .3), and returns when
# all of it is ready: NATS x 3, Cassandra x 1 or 3, Redis x 3 and Valkey x 3 in cluster mode. What runs in DIR already is
# stopped first, and its data thrown away.
#   --secure       one more NATS with TLS and a credentials file
#   --only         some of nats,cassandra,redis,valkey,secure
#   --parent PID   stop everything when that process is gone, however it went; without it, stop.sh ends it
#   --state DIR    where data, logs and process ids lie; .cache/components-state of the checkout unless told
#
# DIR/env then has a line NAME=value each (values quoted for the shell where they need it): REEDI_TEST_NATS_URL,
# REEDI_TEST_CQL, REEDI_TEST_REDIS_URL, REEDI_TEST_VALKEY_URL (all nodes, separated by commas), REEDI_TEST_STATE,
# REEDI_TEST_NODES, and with --secure REEDI_TEST_NATS_TLS_URL, REEDI_TEST_NATS_TLS_CA, REEDI_TEST_NATS_CREDS.
# DIR/NAME/pid is the process id of the node NAME; node.sh kills, holds and restarts single nodes.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cassandra_nodes=1 parent=0 only=nats,cassandra,redis,valkey
while [ $# -gt 0 ]; do
  case $1 in
    --cassandra-nodes) cassandra_nodes=${2:-}; shift 2 ;;
    --secure) only=$only,secure; shift ;;
    --only) only=${2:-}; shift 2 ;;
    --parent) parent=${2:-}; shift 2 ;;
    --state) state=${2:?--state needs a folder}; shift 2 ;;
    *) die "unknown argument $1 (see the head of $0)" ;;
  esac
done
[ "$cassandra_nodes" = 1 ] || [ "$cassandra_nodes" = 3 ] || die "--cassandra-nodes is 1 or 3, not '$cassandra_nodes'"
for kind in ${only//,/ }; do
  case $kind in nats | cassandra | redis | valkey | secure) ;; *) die "--only does not know '$kind'" ;; esac
done
wanted() { [[ ,$only, == *,"$1",* ]]; }
state=$(realpath -m -- "$state")
[ -x "$python" ] || die "nothing is installed in $parts: run install.sh first"
[ ! -e "$state" ] || [ -z "$(ls -A "$state")" ] || [ -e "$state/.components" ] || die "$state exists and is not a folder of this script"

"$here/stop.sh" --state "$state"
rm -rf "$state"
mkdir -p "$state"
touch "$state/.components"
trap '[ -e "$state/env" ] || "$here/stop.sh" --state "$state" || true' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
began=$(date +%s%N)
seconds() { local ms=$((($(date +%s%N) - began) / 1000000)); printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100)); }

node() { # NAME COMMAND...: makes the node's folder with a run that becomes the command
  local dir=$state/$1
  mkdir -p "$dir"
  shift
  { printf '#!/usr/bin/env bash\ncd %q\nexec' "$dir"; printf ' %q' "$@"; echo; } >"$dir/run"
  chmod +x "$dir/run"
}

# The block's first port is the keeper's claim on it. 36 ports are used.
node keeper "$python" "$here/keeper.py" "$state" 40 "$parent" "$here/stop.sh"
launch keeper
until [ -s "$state/base" ]; do
  alive keeper || { cat "$state/keeper/log" >&2; die "no free ports"; }
  sleep 0.02
done
base=$(cat "$state/base")
names=()

fill() { # IN OUT NAME=VALUE...: replaces @NAME@ by the value
  local text in=$1 out=$2 pair
  text=$(cat "$in")
  shift 2
  for pair; do text=${text//"@${pair%%=*}@"/"${pair#*=}"}; done
  printf '%s\n' "$text" >"$out"
}

nats_nodes() {
  local i name routes=""
  for i in 1 2 3; do routes+="${routes:+, }\"nats://127.0.0.1:$((base + 3 + i))\""; done
  for i in 1 2 3; do
    name=nats-$i
    node "$name" "$parts/bin/nats-server" -c nats.conf
    fill "$here/nats/node.conf.in" "$state/$name/nats.conf" NAME="$name" CLIENT=$((base + i)) CLUSTER=$((base + 3 + i)) \
      MON=$((base + 6 + i)) DIR="$state/$name" ROUTES="$routes"
    echo "nats $((base + 6 + i))" >"$state/$name/probe"
    names+=("$name")
  done
}

nats_secure_node() {
  local dir=$state/nats-secure
  node nats-secure "$parts/bin/nats-server" -c nats.conf
  fill "$here/nats/secure.conf.in" "$dir/nats.conf" CLIENT=$((base + 10)) MON=$((base + 11)) DIR="$dir"
  (
    cd "$dir"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca.key -out ca.pem \
      -subj "/CN=Reedi test authority" -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign"
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj "/CN=localhost"
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out server.pem \
      -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n')
    "$python" "$here/credentials.py" .
  ) >"$dir/log" 2>&1 || { cat "$dir/log" >&2; die "nats-secure: certificates and credentials could not be made"; }
  echo "nats-secure $((base + 10)) ca.pem user.creds" >"$dir/probe"
  names+=(nats-secure)
}

cassandra_ring() {
  local i name dir url seeds="" tokens=(-9223372036854775807 -3074457345618258603 3074457345618258602)
  for ((i = 1; i <= cassandra_nodes; i++)); do seeds+="${seeds:+,}127.0.0.$i:$((base + 13))"; done
  for ((i = 1; i <= cassandra_nodes; i++)); do
    name=cassandra-$i dir=$state/cassandra-$i
    url=file://${dir// /%20}
    mkdir -p "$dir/tmp"
    local java=("$parts/bin/java" "@$here/cassandra/jvm.args" -XX:SharedArchiveFile="$parts/cassandra/cassandra.jsa")
    [ -z "${REEDI_TEST_CASSANDRA_JVM:-}" ] || java[2]=$REEDI_TEST_CASSANDRA_JVM
    [ "${java[2]#-XX:SharedArchiveFile=}" = "${java[2]}" ] || [ -e "$parts/cassandra/cassandra.jsa" ] || unset 'java[2]'
    node "$name" "${java[@]}" -Djava.io.tmpdir="$dir/tmp" -Dcassandra.config="$url/cassandra.yaml" \
      -Dcassandra.storagedir="$dir" -Dlogback.configurationFile="file://${here// /%20}/cassandra/logback.xml" \
      -Dcassandra-foreground=yes -cp "$(cat "$parts/cassandra/classpath")" org.apache.cassandra.service.CassandraDaemon
    # All are seeds and none bootstraps, so each gets its token by hand.
    fill "$here/cassandra/cassandra.yaml.in" "$dir/cassandra.yaml" ADDR="127.0.0.$i" SEEDS="$seeds" DIR="$dir" \
      PORT=$((base + 12)) STORAGE=$((base + 13)) SSLSTORAGE=$((base + 14)) TOKEN="${tokens[i - 1]}"
    echo "cql 127.0.0.$i $((base + 12)) $cassandra_nodes" >"$dir/probe"
    names+=("$name")
  done
}

redis_nodes() { # redis|valkey OFFSET
  local i name
  for i in 1 2 3; do
    name=$1-$i
    # Nothing is written to disk: the service must live with a Redis that comes back empty.
    node "$name" "$parts/bin/$1-server" --port $((base + $2 + i)) --cluster-port $((base + $2 + 3 + i)) --bind 127.0.0.1 \
      --cluster-enabled yes --cluster-config-file nodes.conf --cluster-node-timeout 2000 \
      --cluster-require-full-coverage no --appendonly no --save "" --daemonize no
    echo "redis $((base + $2 + i)) 3" >"$state/$name/probe"
    names+=("$name")
  done
}

redis_form() { # redis|valkey OFFSET: makes one cluster of the three
  local i nodes=()
  for i in 1 2 3; do
    wait_ready "$1-$i" alone
    nodes+=("$((base + $2 + i)):$((base + $2 + 3 + i))")
  done
  "$python" "$here/probe.py" form "${nodes[@]}"
}

# Cassandra first: it takes the longest.
if wanted cassandra; then cassandra_ring; fi
if wanted nats; then nats_nodes; fi
if wanted secure; then nats_secure_node; fi
if wanted redis; then redis_nodes redis 20; fi
if wanted valkey; then redis_nodes valkey 30; fi
for name in "${names[@]}"; do launch "$name"; done

group() { # KIND NODES...: waits for all nodes of a kind, says how long it took, or which node failed
  local kind=$1 name
  shift
  case $kind in
    redis) redis_form redis 20 2>"$state/redis-1/wait" || true ;;
    valkey) redis_form valkey 30 2>"$state/valkey-1/wait" || true ;;
  esac
  for name; do
    if ! wait_ready "$name" 2>>"$state/$name/wait"; then
      { printf 'components: %s did not start: %s\n' "$name" "$(tail -n 1 "$state/$name/wait")"; tail -n 30 "$state/$name/log" | sed 's/^/    /'; } >"$state/$name/failed"
      cat "$state/$name/failed" >&2
      return 1
    fi
  done
  printf 'components: %s ready after %s s\n' "$kind x $#" "$(seconds)"
}

waiting=()
for kind in nats secure redis valkey cassandra; do
  wanted "$kind" || continue
  prefix=$kind
  [ "$kind" != secure ] || prefix=nats-secure
  members=()
  for name in "${names[@]}"; do
    case $name in nats-secure) [ "$prefix" = nats-secure ] && members+=("$name") ;; "$prefix"-*) members+=("$name") ;; esac
  done
  group "$kind" "${members[@]}" &
  waiting+=($!)
done
failed=0
for pid in "${waiting[@]}"; do wait "$pid" || failed=1; done
[ "$failed" = 0 ] || die "not all components started; logs lie in $state"

urls() { # SCHEME OFFSET
  local i list=""
  for i in 1 2 3; do list+="${list:+,}${1}127.0.0.1:$((base + $2 + i))"; done
  printf '%s' "$list"
}
{
  printf 'REEDI_TEST_STATE=%q\n' "$state"
  printf 'REEDI_TEST_NODES=%s\n' "$(IFS=,; echo "${names[*]}")"
  if wanted nats; then echo "REEDI_TEST_NATS_URL=$(urls nats:// 0)"; fi
  if wanted cassandra; then
    list=""
    for ((i = 1; i <= cassandra_nodes; i++)); do list+="${list:+,}127.0.0.$i:$((base + 12))"; done
    echo "REEDI_TEST_CQL=$list"
  fi
  if wanted redis; then echo "REEDI_TEST_REDIS_URL=$(urls redis:// 20)"; fi
  if wanted valkey; then echo "REEDI_TEST_VALKEY_URL=$(urls redis:// 30)"; fi
  if wanted secure; then
    echo "REEDI_TEST_NATS_TLS_URL=tls://127.0.0.1:$((base + 10))"
    printf 'REEDI_TEST_NATS_TLS_CA=%q\n' "$state/nats-secure/ca.pem"
    printf 'REEDI_TEST_NATS_CREDS=%q\n' "$state/nats-secure/user.creds"
  fi
} >"$state/env.new"
mv "$state/env.new" "$state/env"
printf 'components: all ready after %s s; %s\n' "$(seconds)" "$state/env"
