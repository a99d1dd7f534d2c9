#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# secpool-bench extents in small: nothing is lost, all free space is one piece a device again, and a region is made with ten thousand of them about as fast as with one thousand.
set -eu

run() { "$B/bin/secpool-bench" extents --json --regions 10000; }
value() { sed -n "s/.*\"metric\":\"$1\",\"value\":\([^,]*\),.*/\1/p" <<<"$2"; }

for arguments in "--regions" "--regions 0" "--regions 1999" "--regions 2000x" "--regions -2000"; do
	status=0
	# shellcheck disable=SC2086
	"$B/bin/secpool-bench" extents $arguments 2>/dev/null || status=$?
	[ "$status" = 2 ] || { echo "failed: $arguments gave $status"; exit 1; }
done

# times on a busy machine: the best of some runs counts, what must be exact is looked at in each
for try in 1 2 3; do
	results=$(run)
	echo "$results"
	[ "$(value leak "$results")" = 0 ] || { echo "failed: a leak"; exit 1; }
	[ "$(value free_extents_at_end "$results")" = 64 ] || { echo "failed: free space in pieces at the end"; exit 1; }
	slower=$(value create_slowdown "$results")
	# one that reads all extents for each region takes 6.5 times as long
	if awk -v slower="$slower" 'BEGIN { exit !(slower > 0 && slower < 3) }'; then
		echo "passed: $slower times as long with ten times as many regions"
		exit 0
	fi
done
echo "failed: $slower times as long with ten times as many regions, in $try runs"
exit 1
