#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs all benches against an embedded default of its own: one JSON object a line.                     (make bench)
set -eu

cd "$(dirname "$0")/.."
B=$(cd "${B:-build}" && pwd)
[ -x "$B/bin/secpool-bench" ] || { echo "bench: $B/bin/secpool-bench is missing, run make" >&2; exit 1; }
work=$(mktemp -d /dev/shm/spb.XXXXXX)
export SECPOOL_RUNTIME_DIR=$work/run
trap '"$B/bin/secpool" down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

"$B/bin/secpool" up --devices 3 --device-bytes "${BENCH_DEVICE_BYTES:-768M}" >&2
# shellcheck disable=SC2086 # names, separated by blanks
"$B/bin/secpool-bench" --json ${BENCHES:-cipher fault scan failover}
