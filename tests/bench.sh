#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs all benches against an embedded default of its own: one JSON object a line, to standard output and to results.jsonl, and pictures of them,
# in $B/bench.                                                                                         (make bench)
# BENCHES="scan random" runs those; BENCH_DEVICE_BYTES sets the size of each of the seven devices. Exit status 1 when a bench failed; the others are run all the same.
set -u

cd "$(dirname "$0")/.." || exit 1
B=$(cd "${B:-build}" && pwd)
[ -x "$B/bin/secpool-bench" ] || { echo "bench: $B/bin/secpool-bench is missing, run make" >&2; exit 1; }
names=${BENCHES:-cipher fault scan random stride threads pagesize heap scrub extents keymgr audit readwrite metadata overhead evict program share redundancy failover rebuild}
out=$B/bench
mkdir -p "$out"
work=$(mktemp -d /dev/shm/spb.XXXXXX)
export SECPOOL_RUNTIME_DIR=$work/run
trap '"$B/bin/secpool" down >/dev/null 2>&1 || true; [ ! -e "$work/mounted" ] || umount "$work"; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# Pages of 2 MiB under the devices, as a CXL device is mapped: with small ones each page that is read costs a miss of the TLB more.
if mount -t tmpfs -o huge=always,size=95%,mode=700 secpool-bench "$work" 2>/dev/null && touch "$work/mounted"; then
	echo "a tmpfs with pages of 2 MiB"
else
	echo "/dev/shm"
fi >"$out/devices.txt"

"$B/bin/secpool" up --devices 7 --device-bytes "${BENCH_DEVICE_BYTES:-768M}" >&2 || exit 1

# Space that a bench gave back must be overwritten before the next can have all of it.
wait_scrubbed() {
	for _ in $(seq 100); do
		"$B/bin/secpool" device list --json | grep -qE '"(used|unscrubbed)_bytes": *[1-9]' || return 0
		sleep 0.1
	done
}

status=0
: >"$out/results.jsonl"
for name in $names; do
	wait_scrubbed
	start=$SECONDS
	# again when it failed: the kernel may have killed the process that swaps
	for try in 1 2 3; do
		"$B/bin/secpool-bench" "$name" --json > "$work/one.jsonl" && break
		echo "bench: $name failed, try $try" >&2
		[ "$try" = 3 ] && status=1
	done
	tee -a "$out/results.jsonl" < "$work/one.jsonl"
	echo "bench: $name took $((SECONDS - start)) s" >&2
done
tests/bench/plot.sh "$out/results.jsonl" "$out" >&2 || status=1
exit "$status"
