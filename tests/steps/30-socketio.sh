#!/usr/bin/env bash
# usage: tests/steps/30-socketio.sh     The Socket.IO front door, with the real client of JavaScript from npm, against
# `reedi dev` on free ports, over WebSocket, polling, and polling that upgrades.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
[ -d tests/socketio/node_modules ] || { echo "the Socket.IO client is not installed: tests/components/install.sh does it" >&2; exit 1; }
cargo build --quiet --locked --bin reedi
REEDI_BIN=$(realpath "$target/debug/reedi")
export REEDI_BIN
cd tests/socketio
exec node --test --test-reporter=spec --test-timeout=120000 ./*.test.mjs
