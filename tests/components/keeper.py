"""Finds a block of free ports, holds it while the components run, and stops them when their user dies.

usage: keeper.py STATE SIZE PARENT STOP
Writes the first port of the block to STATE/base. The first port itself stays bound here as the claim on the block, so
that two checkouts which start at once never take the same one. PARENT is a process id, or 0: with a parent, STOP is run
when that process is gone, however it went.
"""

import os
import socket
import sys
import time
import zlib

# Below the range from which Linux takes the ports of outgoing connections.
FIRST, LAST = 20000, 32700
ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


def listener(address, port):
    s = socket.socket()
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, port))
        s.listen(1)
        return s
    except OSError:
        s.close()
        return None


def claim(state, size):
    blocks = (LAST - FIRST) // size
    # Each checkout begins its search elsewhere, so that its ports are mostly the same from run to run.
    start = zlib.crc32(state.encode()) % blocks
    for i in range(blocks):
        base = FIRST + (start + i) % blocks * size
        held = listener("127.0.0.1", base)
        if held is None:
            continue
        for port in range(base + 1, base + size):
            for address in ADDRESSES:
                s = listener(address, port)
                if s is None:
                    break
                s.close()
            else:
                continue
            break
        else:
            return base, held
        held.close()
    sys.exit("keeper: no block of %d free ports between %d and %d" % (size, FIRST, LAST))


def start_time(pid):
    """The start time of a living process, None of a dead one: a pid alone may be given to another process later."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def main():
    state, size, parent, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    began = start_time(parent) if parent else None
    base, held = claim(state, size)
    with open(state + "/base.new", "w") as f:
        f.write(str(base))
    os.rename(state + "/base.new", state + "/base")
    while not parent or start_time(parent) == began is not None:
        time.sleep(0.5)
    held.close()
    os.execv(stop, [stop, "--state", state])


main()
