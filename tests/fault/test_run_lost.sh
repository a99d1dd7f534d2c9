#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A program as it is, without redundancy, whose device is pulled: lost pages are SIGBUS in it and in its child by fork (tests/plain/plain.c, check_lost), all others are right, none is zeros;
# and what --on-loss asks for. timeout: 450
set -eu
[ -z "${SAN:-}" ] || { echo "the sanitizers bring a malloc of their own"; exit 77; }
S=$B/bin/secpool
P=$B/tests/plain/plain
work=$(mktemp -d "${TMPDIR:-/tmp}/run-lost.XXXXXX")
trap '"$S" down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
fail() { echo "failed: $1"; cat "$work/out"; exit 1; }

# play THEN OPTIONS...: the program fills its memory, its device goes; THEN it goes on, or waits to be ended; $status is its end
play() {
	local pid then=$1
	shift
	rm -f "$work/in"
	mkfifo "$work/in"
	: >"$work/out"
	"$S" up --devices 1 --device-bytes 128M >/dev/null
	timeout 100 "$S" run --local-bytes 8M "$@" -- "$P" lost <"$work/in" >"$work/out" 2>&1 &
	pid=$!
	exec 9>"$work/in"
	for _ in $(seq 600); do
		grep -q ready "$work/out" && break
		sleep 0.1
	done
	"$S" device pull dev0 >/dev/null
	[ "$then" = wait ] || echo >&9
	status=0
	wait "$pid" || status=$?
	exec 9>&-
	"$S" down >/dev/null
}

trap '' PIPE
play go-on
[ "$status" = 0 ] || fail "status $status"
lost=$(sed -n 's/ lost$//p' "$work/out")
# at least what was out of local memory, and not what was resident
if [ "$lost" -lt 3500 ] || [ "$lost" -ge 6144 ]; then
	fail "lost pages: $lost"
fi
grep -qx ok "$work/out" || fail "no ok"
play wait --on-loss kill
[ "$status" = 137 ] || fail "--on-loss kill: status $status"
play wait --on-loss signal:TERM
[ "$status" = 143 ] || fail "--on-loss signal:TERM: status $status"
