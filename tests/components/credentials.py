"""Writes what a NATS server with accounts by JWT needs, and a client's credentials file for it.

usage: credentials.py DIR    writes operator.jwt, accounts.conf (include it) and user.creds into DIR

Keys are nkeys: a type byte, the Ed25519 key and a CRC-16, in base 32. openssl makes the keys and the signatures.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time

OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3
# An Ed25519 private key in DER is this and the 32 bytes of the seed.
DER = bytes.fromhex("302e020100300506032b657004220420")


def nkey(data):
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return base64.b32encode(data + crc.to_bytes(2, "little")).rstrip(b"=").decode()


def openssl(*args, stdin=b""):
    return subprocess.run(("openssl",) + args, input=stdin, stdout=subprocess.PIPE, check=True).stdout


class Key:
    def __init__(self, kind, secret):
        self.kind, self.secret = kind, secret
        public = openssl("pkey", "-inform", "DER", "-pubout", "-outform", "DER", stdin=DER + secret)[-32:]
        self.public = nkey(bytes([kind]) + public)
        self.seed = nkey(bytes([SEED | kind >> 5, (kind & 31) << 3]) + secret)

    @classmethod
    def new(cls, kind):
        return cls(kind, os.urandom(32))

    @classmethod
    def from_seed(cls, seed):
        data = base64.b32decode(seed + "=" * (-len(seed) % 8))
        return cls((data[0] & 7) << 5 | data[1] >> 3, data[2:34])

    def sign(self, message):
        with tempfile.NamedTemporaryFile() as key, tempfile.NamedTemporaryFile() as text:
            key.write(DER + self.secret)
            key.flush()
            text.write(message)
            text.flush()
            return openssl("pkeyutl", "-sign", "-rawin", "-keyform", "DER", "-inkey", key.name, "-in", text.name)

    def jwt(self, subject, name, claims):
        body = {"iat": int(time.time()), "iss": self.public, "name": name, "sub": subject, "nats": dict(claims, version=2)}
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
        body["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
        text = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
        return (text + b"." + base64.urlsafe_b64encode(self.sign(text)).rstrip(b"=")).decode()


def main(folder):
    def write(name, text, mode=0o644):
        with open(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as f:
            f.write(text)

    # JetStream with accounts by JWT does not start without a system account, although nobody logs in to it.
    operator, system, account, user = Key.new(OPERATOR), Key.new(ACCOUNT), Key.new(ACCOUNT), Key.new(USER)
    plain = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
    stored = ("mem_storage", "disk_storage", "streams", "consumer")

    def account_jwt(key, name, unlimited):
        limits = dict({limit: -1 for limit in unlimited}, wildcards=True)
        return operator.jwt(key.public, name, {"type": "account", "limits": limits, "default_permissions": {"pub": {}, "sub": {}}})

    preload = {system.public: account_jwt(system, "system", plain), account.public: account_jwt(account, "test", plain + stored)}
    user_jwt = account.jwt(user.public, "reedi", {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1})
    write("operator.jwt", operator.jwt(operator.public, "test", {"type": "operator", "system_account": system.public}) + "\n")
    write("accounts.conf", "resolver_preload: %s\n" % json.dumps(preload))
    # Dashes as the client libraries expect them: five before and six before an END of the first part.
    write(
        "user.creds",
        "-----BEGIN NATS USER JWT-----\n%s\n------END NATS USER JWT------\n\n"
        "-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n" % (user_jwt, user.seed),
        0o600,
    )


if __name__ == "__main__":
    main(sys.argv[1])
