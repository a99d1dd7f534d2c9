#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs tests, two at a time: tests/run.sh PROGRAM-OR-SCRIPT...        (docs/testing.md)
#
# A test exits 0 (passed), 77 (skipped, its last line is the reason) or anything else (failed). Each one has a folder of its own
# on tmpfs (SECPOOL_RUNTIME_DIR and TMPDIR are below it), its own process group, and 120 seconds; a line with "timeout: N" among
# the first 30 of its source says otherwise. What runs too long has its threads' stacks printed and is ended. What a test left
# running is ended, by id. A sanitizer's report fails the test, in whichever of its processes it came up.
# Environment: B (build folder), SAN (asan, tsan or empty), JOBS (2), TIMEOUT_FACTOR.
set -u

cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
SAN=${SAN:-}
JOBS=${JOBS:-2}
mkdir -p "$B"
B=$(cd "$B" && pwd)
export B SAN
factor=${TIMEOUT_FACTOR:-$([ -n "$SAN" ] && echo 4 || echo 1)}
results=$(mktemp -d /dev/shm/spr.XXXXXX)

# The source of a test, where its limits are written.
source_of() {
	case $1 in
	*.sh) echo "$1" ;;
	*) echo "tests/${1##*/tests/}.c" ;;
	esac
}

seconds_of() {
	local limit
	limit=$(head -n 30 "$(source_of "$1")" 2>/dev/null | sed -n 's/.*timeout: \([0-9][0-9]*\).*/\1/p' | head -n 1)
	echo $((${limit:-120} * factor))
}

# Processes of a test: its session, and those whose arguments or environment name its folder (daemons leave the session).
processes_of() {
	local group=$1 folder=$2
	{
		# after the name in brackets: state ppid pgrp session
		cat /proc/[0-9]*/stat 2>/dev/null | sed 's/^\([0-9]*\) (.*) /\1 /' |
			awk -v group="$group" '$5 == group { print $1 }'
		grep -laF "$folder/" /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3
	} | sort -u | while read -r pid; do
		# not this runner's own helpers, nor what has ended
		case $(readlink "/proc/$pid/exe") in
		'' | */grep | */awk | */mawk | */sort | */cut) continue ;;
		esac
		[ "$pid" = "$$" ] || [ "$pid" = "$BASHPID" ] || echo "$pid"
	done
}

show_stacks() {
	local pid
	for pid in "$@"; do
		echo "---- stacks of $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-150)"
		# a process that is traced already (the enclave) can't be looked at
		timeout 30 gdb -nx -batch -p "$pid" -ex 'thread apply all bt 20' 2>&1 |
			grep -E '^(Thread|#|ptrace|Could not)' || true
		echo "kernel: $(cat "/proc/$pid/wchan" 2>/dev/null) $(grep -E '^State' "/proc/$pid/status" 2>/dev/null)"
	done
}

sanitizer_settings() {
	local reports=$1
	# nothing here hides a finding; a finding ends the process, and its report lands in a file that fails the test
	export ASAN_OPTIONS="halt_on_error=1:exitcode=98:detect_stack_use_after_return=1:strict_string_checks=1:log_path=$reports/asan"
	export LSAN_OPTIONS="exitcode=98:report_objects=1"
	export UBSAN_OPTIONS="halt_on_error=1:exitcode=98:print_stacktrace=1:log_path=$reports/ubsan"
	export TSAN_OPTIONS="halt_on_error=1:exitcode=98:second_deadlock_stack=1:history_size=5:log_path=$reports/tsan"
}

# end_processes FOLDER GROUP: politely, then not. Prints how many there were.
end_processes() {
	local left count
	left=$(processes_of "$2" "$1")
	count=$(wc -w <<<"$left")
	if [ "$count" -gt 0 ]; then
		# shellcheck disable=SC2086 # a list of ids
		kill -TERM $left 2>/dev/null
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			[ -z "$(processes_of "$2" "$1")" ] && break
			sleep 0.2
		done
		left=$(processes_of "$2" "$1")
		# shellcheck disable=SC2086
		[ -z "$left" ] || kill -KILL $left 2>/dev/null
	fi
	echo "$count"
}

# run_one NUMBER TEST
run_one() {
	local number=$1 test=$2 folder output limit pid sleeper ended status result left begin seconds note=
	folder=$(mktemp -d /dev/shm/spt.XXXXXX)
	chmod 755 "$folder"
	mkdir -m 1777 "$folder/tmp" "$folder/reports"
	output=$results/$number.output
	limit=$(seconds_of "$test")
	sanitizer_settings "$folder/reports"
	begin=$(date +%s.%N)
	SECPOOL_RUNTIME_DIR=$folder/run TMPDIR=$folder/tmp setsid "$test" >"$output" 2>&1 </dev/null &
	pid=$!
	# when the runner itself is ended, so is what it runs
	# shellcheck disable=SC2064 # as they are now
	trap "kill -KILL -- -$pid 2>/dev/null; end_processes '$folder' $pid >/dev/null; rm -rf '$folder'; exit 1" TERM INT
	sleep "$limit" &
	sleeper=$!
	ended=
	wait -n -p ended "$pid" "$sleeper"
	status=$?
	if [ "$ended" = "$sleeper" ]; then
		{
			echo "---- no end after $limit seconds"
			# shellcheck disable=SC2046 # a list of ids
			show_stacks $(processes_of "$pid" "$folder")
		} >>"$output" 2>&1
		kill -KILL -- "-$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
		status=124
		note=" (no end after $limit s)"
	else
		kill "$sleeper" 2>/dev/null
		wait "$sleeper" 2>/dev/null
	fi
	left=$(end_processes "$folder" "$pid")
	[ "$left" -gt 0 ] && note="$note (left $left processes running)"
	if [ -n "$(ls -A "$folder/reports")" ]; then
		cat "$folder"/reports/* >>"$output"
		[ "$status" = 0 ] || [ "$status" = 77 ] && status=98
		note="$note (sanitizer)"
	fi
	if [ "$status" != 0 ] && [ "$status" != 77 ]; then
		for log in "$folder"/run/log/*.log; do
			[ -s "$log" ] && { echo "---- ${log##*/}"; tail -n 40 "$log"; } >>"$output"
		done
	fi
	rm -rf "$folder"
	seconds=$(echo "$(date +%s.%N) $begin" | awk '{ printf "%.1f", $1 - $2 }')
	case $status in
	0) result=ok ;;
	77) result=skip note=": $(tail -n 1 "$output")" ;;
	*) result=FAIL note="$note (exit $status)" ;;
	esac
	printf '%s\n' "$result" >"$results/$number.result"
	{
		printf '%-4s %-44s %7s s%s\n' "$result" "${test##*tests/}" "$seconds" "$note"
		[ "$result" = FAIL ] && sed 's/^/     | /' "$output"
	} >"$results/$number.report"
	cat "$results/$number.report"
}

# the kinds that take longest first, so that no core waits at the end
ordered=$(for test in "$@"; do
	case $test in
	*/fault/*) kind=1 ;;
	*/integration/*) kind=2 ;;
	*/security/*) kind=3 ;;
	*) kind=4 ;;
	esac
	printf '%d %05d %s\n' "$kind" $((99999 - $(seconds_of "$test"))) "$test"
done | sort | cut -d' ' -f3)

stop() {
	local workers
	workers=$(jobs -p)
	# shellcheck disable=SC2086
	[ -z "$workers" ] || kill -TERM $workers 2>/dev/null
	wait
	rm -rf "$results"
	echo "interrupted" >&2
	exit 1
}
trap stop TERM INT

number=0
for test in $ordered; do
	while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do
		wait -n
	done
	number=$((number + 1))
	run_one "$number" "$test" &
done
wait

passed=$(cat "$results"/*.result 2>/dev/null | grep -c '^ok')
skipped=$(cat "$results"/*.result 2>/dev/null | grep -c '^skip')
failed=$((number - passed - skipped))
rm -rf "$results"
[ "$number" -gt 0 ] || echo "no test was named" >&2
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$number" -gt 0 ]
