"""Asks a component whether it is ready.

usage: probe.py wait --pid PID --seconds N [--alone] KIND ARGS...
       probe.py form PORT:BUS PORT:BUS PORT:BUS     makes one cluster of masters of empty Redis or Valkey nodes

KIND ARGS: nats MONITORPORT | nats-secure PORT CA CREDS | cql ADDRESS PORT NODES | redis PORT NODES
With --alone only the node itself is asked, not whether it sees the others.
Exit status of wait: 0 ready, 3 the process is gone, 4 not ready in time.
"""

import base64
import json
import os
import socket
import ssl
import struct
import sys
import time
import urllib.request


def nats(alone, monitor):
    def get(path):
        with urllib.request.urlopen("http://127.0.0.1:%s/%s" % (monitor, path), timeout=2) as answer:
            return json.load(answer)

    if get("healthz" + ("?js-server-only=true" if alone else ""))["status"] != "ok":
        return False
    return alone or bool(get("jsz").get("meta_cluster", {}).get("leader"))


def nats_secure(alone, port, ca, creds):
    """Connects as a client does: TLS, the nonce signed by the seed of the credentials file, JetStream asked for."""
    import credentials

    with open(creds) as f:
        lines = f.read().splitlines()
    jwt = lines[lines.index("-----BEGIN NATS USER JWT-----") + 1]
    seed = lines[lines.index("-----BEGIN USER NKEY SEED-----") + 1]
    raw = socket.create_connection(("127.0.0.1", int(port)), timeout=2)
    info = json.loads(raw.makefile("rb", buffering=0).readline().split(b" ", 1)[1])
    with ssl.create_default_context(cafile=ca).wrap_socket(raw, server_hostname="127.0.0.1") as s:
        signature = credentials.Key.from_seed(seed).sign(info["nonce"].encode())
        hello = {"jwt": jwt, "sig": base64.urlsafe_b64encode(signature).rstrip(b"=").decode(), "verbose": False, "pedantic": False, "lang": "probe", "version": "0"}
        s.sendall(b"CONNECT " + json.dumps(hello).encode() + b"\r\nSUB probe 1\r\nPUB $JS.API.INFO probe 0\r\n\r\n")
        answers = s.makefile("rb")
        while line := answers.readline():
            if line.startswith(b"-ERR"):
                raise OSError(line.decode().strip())
            if line.startswith(b"MSG probe"):
                return b"\"error\":" not in answers.readline()
    return False


def cql(alone, address, port, nodes):
    """CQL by hand, protocol 4: a local read, and for a ring a read which every node must answer."""
    one, all_of_them = 1, 5
    with socket.create_connection((address, int(port)), timeout=5) as s:
        s.settimeout(10)

        def receive(count):
            data = b""
            while len(data) < count:
                part = s.recv(count - len(data))
                if not part:
                    raise OSError("closed")
                data += part
            return data

        def ask(opcode, body):
            s.sendall(struct.pack(">BBHBI", 4, 0, 0, opcode, len(body)) + body)
            _, _, _, answer, length = struct.unpack(">BBHBI", receive(9))
            body = receive(length)
            if answer == 0:
                raise OSError(body.decode(errors="replace"))
            return body

        def query(text, consistency):
            return ask(7, struct.pack(">I", len(text)) + text.encode() + struct.pack(">HB", consistency, 0))

        ask(1, struct.pack(">HH11sH5s", 1, 11, b"CQL_VERSION", 5, b"3.0.0"))
        # The count is the last value of the only row.
        peers = struct.unpack(">q", query("SELECT count(*) FROM system.peers_v2", one)[-8:])[0]
        if int(nodes) > 1 and not alone:
            if peers != int(nodes) - 1:
                return False
            query("SELECT count(*) FROM system_distributed.view_build_status WHERE keyspace_name='a' AND view_name='b'", all_of_them)
    return True


def redis_ask(port, *words):
    with socket.create_connection(("127.0.0.1", int(port)), timeout=5) as s:
        s.settimeout(5)
        s.sendall(("*%d\r\n" % len(words) + "".join("$%d\r\n%s\r\n" % (len(w), w) for w in words)).encode())
        answers = s.makefile("rb")
        line = answers.readline().decode().strip()
        if line.startswith("-"):
            raise OSError(line)
        return answers.read(int(line[1:])).decode() if line.startswith("$") else line


def redis(alone, port, nodes):
    if redis_ask(port, "PING") != "+PONG":
        return False
    if alone:
        return True
    info = dict(line.split(":", 1) for line in redis_ask(port, "CLUSTER", "INFO").split("\r\n") if ":" in line)
    return info["cluster_state"] == "ok" and info["cluster_slots_assigned"] == "16384" and info["cluster_known_nodes"] == nodes


def form(*nodes):
    nodes = [node.split(":") for node in nodes]
    for i, (port, _) in enumerate(nodes):
        first, last = 16384 * i // len(nodes), 16384 * (i + 1) // len(nodes) - 1
        redis_ask(port, "CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
        redis_ask(port, "CLUSTER", "SET-CONFIG-EPOCH", str(i + 1))
    for port, bus in nodes[1:]:
        redis_ask(nodes[0][0], "CLUSTER", "MEET", "127.0.0.1", port, bus)


def wait(args):
    pid, until, alone = 0, time.monotonic(), False
    while args[0].startswith("--"):
        option = args.pop(0)
        if option == "--alone":
            alone = True
        elif option == "--pid":
            pid = int(args.pop(0))
        else:
            until += float(args.pop(0))
    ask = {"nats": nats, "nats-secure": nats_secure, "cql": cql, "redis": redis}[args.pop(0)]
    why = "not yet ready"
    while True:
        try:
            if ask(alone, *args):
                return 0
        except (OSError, ValueError, KeyError) as e:
            why = str(e)
        try:
            with open("/proc/%d/stat" % pid) as f:
                dead = f.read().rsplit(")", 1)[1].split()[0] in "ZX"
        except OSError:
            dead = True
        if dead:
            print("the process ended", file=sys.stderr)
            return 3
        if time.monotonic() > until:
            print("not ready in time: " + why, file=sys.stderr)
            return 4
        time.sleep(0.05)


if __name__ == "__main__":
    # Nothing is written into the checkout.
    sys.dont_write_bytecode = True
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    sys.exit(wait(sys.argv[2:]) if sys.argv[1] == "wait" else form(*sys.argv[2:]))
