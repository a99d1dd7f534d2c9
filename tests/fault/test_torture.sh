#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The torture: 20 seconds on a seed from the clock, then the first of the seeds that once failed (tests/torture/seeds), 5 seconds each. TORTURE_SECONDS and TORTURE_SEED
# are for longer runs and for running one again. timeout: 400
set -u
cd "$(dirname "$0")/../.." || exit 1
torture=${B:-build}/bin/secpool-torture
kept=${TMPDIR:-/tmp}/torture.$$
unset SECPOOL_RUNTIME_DIR
trap 'rm -rf "$kept"' EXIT

run() {
	local seconds=$1 seed=$2 log
	echo "secpool-torture --seconds $seconds --seed $seed"
	if ! "$torture" --seconds "$seconds" --seed "$seed" --keep "$kept"; then
		for log in "$kept"/log/*.log; do
			echo "---- ${log##*/}"
			tail -n 30 "$log"
		done
		echo "failed: secpool-torture --seconds $seconds --seed $seed"
		exit 1
	fi
	rm -rf "$kept"
}

run "${TORTURE_SECONDS:-20}" "${TORTURE_SEED:-$(date +%s%N)}"
[ -z "${TORTURE_SEED:-}" ] || exit 0
# a line: SEED, then why it is kept
grep -v '^#' tests/torture/seeds | head -n 3 | while read -r seed why; do
	echo "kept: $why"
	run 5 "$seed" || exit 1
done
