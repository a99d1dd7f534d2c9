#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The demo's second part: redis-server as it is, a quarter of its data in local memory, on mirror:2. A device is pulled while redis-benchmark runs; then every key is checked.
# Prints requests a second before, during and after, with a bar for each half second. Called by tests/demo.sh, where the pool is up: tests/demo_redis.sh FOLDER DEVICE
#   DEMO_REDIS_BYTES   how much data (64M)
#   DEMO_TENANT        as in tests/demo.sh
set -eu
secpool=$B/bin/secpool
work=$1
pulled=$2
mib=$(($(numfmt --from=iec "${DEMO_REDIS_BYTES:-64M}") / 1048576))
value_bytes=1000
keys=$((mib * 1000))
if ! command -v redis-server >/dev/null || ! command -v redis-benchmark >/dev/null; then
	echo "redis-server is not installed (make deps): its part of the demo is left out"
	exit 0
fi

[ -e "$B/lib/libsecpool-preload.so" ] || {
	echo "this build has no libsecpool-preload.so (a sanitizer's has none): redis' part of the demo is left out"
	exit 0
}

server='' load=''
finish() {
	[ -z "$load" ] || kill "$load" 2>/dev/null || true
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
}
trap finish EXIT
fail() { echo "demo: redis: $1; its log ends with:" >&2; tail -n 5 "$work/redis.log" >&2; exit 1; }
client() { redis-cli -s "$work/redis.sock" "$@"; }

echo
echo "redis-server as it is: $mib MiB of data, $((mib / 4)) MiB of it in local memory, on mirror:2; $pulled is pulled under load"
"$secpool" run --tenant "${DEMO_TENANT:-default}" --local-bytes "$((mib / 4))M" --redundancy mirror:2 -- \
	redis-server --port 0 --unixsocket "$work/redis.sock" --save "" --dir "$work" >"$work/redis.log" 2>&1 &
server=$!
for _ in $(seq 300); do
	[ -S "$work/redis.sock" ] && break
	kill -0 "$server" 2>/dev/null || fail "it ended"
	sleep 0.1
done
seq "$keys" | awk -v n=$value_bytes '{ printf "SET key:%012d %0*d\n", $1 - 1, n, $1 * 7919 }' | client --pipe >"$work/taken"
grep -q 'errors: 0' "$work/taken" || fail "keys were not taken"

redis-benchmark -s "$work/redis.sock" -l -r "$keys" -c 8 -t get -q >/dev/null 2>&1 &
load=$!
sleep 0.5

served() { client info stats | sed -n 's/^total_commands_processed:\([0-9]*\).*/\1/p'; }
# phase NAME COUNT: that many half seconds; each with its requests a second
phase() {
	local name=$1 count=$2 from to began ended
	# one request is our own question
	for _ in $(seq "$count"); do
		from=$(served) began=$EPOCHREALTIME
		sleep 0.5
		to=$(served) ended=$EPOCHREALTIME
		echo "$name $(((to - from - 1) * 1000000 / (${ended/./} - ${began/./})))" >>"$work/rates"
	done
}
phase before 4
"$secpool" device pull "$pulled" >/dev/null
phase during 2
phase after 4
kill "$load" 2>/dev/null || true
status=0
wait "$load" 2>/dev/null || status=$?
load=
[ "$status" = 143 ] || fail "redis-benchmark did not run until it was stopped: status $status"

awk '{ name[NR] = $1; rate[NR] = $2; if ($2 > most) most = $2; sum[$1] += $2; count[$1]++ }
	END {
		for (i = 1; i <= NR; i++) {
			bar = ""
			for (j = 0; most > 0 && j < 50 * rate[i] / most; j++)
				bar = bar "#"
			printf "  %-7s %8d requests/s  %s\n", name[i], rate[i], bar
		}
		printf "  redis requests a second: before %d, during %d, after %d\n", sum["before"] / count["before"], sum["during"] / count["during"], sum["after"] / count["after"]
		exit sum["after"] == 0
	}' "$work/rates" || fail "it served nothing after the pull"

wrong=$(seq "$keys" | awk '{ printf "GET key:%012d\n", $1 - 1 }' | client |
	awk -v n=$value_bytes '{ if ($0 != sprintf("%0*d", n, NR * 7919)) wrong++ } END { print wrong + 0, NR }')
[ "$wrong" = "0 $keys" ] || fail "wrong keys, and keys: $wrong, not 0 $keys"
echo "  redis keys checked $keys, wrong 0"
client shutdown nosave >/dev/null 2>&1 || true
wait "$server" || fail "it ended with status $?"
server=
"$secpool" device plug "$pulled" >/dev/null
