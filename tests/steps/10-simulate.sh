#!/usr/bin/env bash
# usage: tests/steps/10-simulate.sh     A thousand seeded runs of a whole cluster, and the named schedules.
#
# The runtime's own randomness is seeded too, by what tokio has only behind `tokio_unstable`: so all of it is built
# apart, which takes minutes the first time. A seed that fails is printed; `make simulate SEED=n` replays it.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec make simulate
