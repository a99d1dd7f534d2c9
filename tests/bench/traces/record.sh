#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Records which pages a real program uses, in order, for `secpool-bench evict`: sqlite3 with the queries of queries.sql, under valgrind's lackey. Needs the Debian
# packages valgrind, sqlite3 and gawk. Writes sqlite3.trace; takes a few minutes.
#
# Kept: loads and stores of data, as 4 KiB pages, numbered in the order of their first use. A page that was used among the last 64 that were noted is not noted again: such uses
# would never be faults. Format: docs in README.md beside this file.
set -eu

cd "$(dirname "$0")"
log=$(mktemp -u)
mkfifo "$log"
trap 'rm -f "$log"' EXIT
valgrind --tool=lackey --trace-mem=yes --log-file="$log" sqlite3 :memory: < queries.sql > /dev/null &
gawk '
	$1 == "L" || $1 == "S" || $1 == "M" {
		page = substr($2, 1, index($2, ",") - 4)
		if (page in recent)
			next
		recent[page] = 1
		if (last[turn] != "")
			delete recent[last[turn]]
		last[turn] = page
		turn = (turn + 1) % 64
		if (!(page in number))
			number[page] = pages++
		print number[page]
	}' "$log" |
gawk 'BEGIN { printf "SPTRACE1" }
	function put(value) {
		while (value >= 128) { printf "%c", value % 128 + 128; value = int(value / 128) }
		printf "%c", value
	}
	{ delta = $1 - before; before = $1; put(delta < 0 ? -2 * delta - 1 : 2 * delta) }' > sqlite3.trace
wait
ls -l sqlite3.trace
