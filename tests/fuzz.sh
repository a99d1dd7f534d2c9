#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs each fuzz target for FUZZ_SECONDS: tests/fuzz.sh TARGET...                                     (make fuzz)
# What is found is kept in build/fuzz/<target>/ with the input that shows it; inputs worth keeping are in tests/fuzz/corpus/<target>/.
set -u

cd "$(dirname "$0")/.." || exit 1
[ $# -gt 0 ] || { echo "there are no fuzz targets" >&2; exit 1; }
seconds=${FUZZ_SECONDS:-60}
failed=0
for target in "$@"; do
	name=$(basename "$target")
	found=build/fuzz/$name
	mkdir -p "$found/corpus"
	seeds=()
	[ -d "tests/fuzz/corpus/$name" ] && seeds=("tests/fuzz/corpus/$name")
	# -timeout: one input; -rss_limit_mb: memory
	if "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
		-artifact_prefix="$found/" "$found/corpus" "${seeds[@]}" >"$found/log" 2>&1; then
		printf 'ok   %-20s %s runs\n' "$name" "$(sed -n 's/stat::number_of_executed_units: *//p' "$found/log")"
	else
		failed=$((failed + 1))
		printf 'FAIL %-20s the input is in %s\n' "$name" "$found"
		grep -E 'ERROR|SUMMARY|runtime error' "$found/log" | head -n 5
		tail -n 30 "$found/log"
	fi
done
echo "$(($# - failed)) passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
