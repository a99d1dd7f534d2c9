#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# redis-server and memcached as they are, by `secpool run` on mirror:2, with about four times the local memory (4M): every key is checked, a snapshot is made in the background, and a
# device is pulled in the middle. timeout: 900
set -eu
[ -z "${SAN:-}" ] || { echo "the sanitizers bring a malloc of their own"; exit 77; }
S=$B/bin/secpool
work=$(mktemp -d "${TMPDIR:-/tmp}/servers.XXXXXX")
server=
finish() {
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	"$S" down >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap finish EXIT
fail() { echo "failed: $1"; tail -n 5 "$work/log" || true; exit 1; }
"$S" up --devices 3 --device-bytes 256M >/dev/null

# start COMMAND...: on mirror:2, until its socket answers
start() {
	"$S" run --local-bytes 4M --redundancy mirror:2 -- "$@" >"$work/log" 2>&1 &
	server=$!
	for _ in $(seq 300); do
		[ ! -S "$work/socket" ] || return 0
		kill -0 "$server" 2>/dev/null || fail "$1 ended"
		sleep 0.1
	done
	fail "$1 did not begin"
}
await_end() {
	local status=0
	wait "$server" || status=$?
	server=
	[ "$status" = "$1" ] || fail "status $status, not $1"
}
client() { timeout 60 redis-cli -s "$work/socket" "$@"; }
keys=12000 # their names are redis-benchmark's: what it reads is there, and mostly out of local memory
sets() { seq "$keys" | awk '{ printf "SET key:%012d %01000d\n", $1 - 1, $1 * 7919 }'; }
values() { seq "$keys" | awk '{ printf "%01000d\n", $1 * 7919 }' | sha256sum; }
stored() { seq "$keys" | awk '{ printf "GET key:%012d\n", $1 - 1 }' | client | sha256sum; }

# ---- redis ----
start redis-server --port 0 --unixsocket "$work/socket" --save "" --dir "$work" --enable-debug-command yes
sets | client --pipe | grep -q 'errors: 0' || fail "keys were not taken"
[ "$(client dbsize)" = $keys ] || fail "keys are missing"
digest=$(client debug digest)
timeout 60 redis-benchmark -s "$work/socket" -n 4000 -r $keys -t get -q >/dev/null || fail "redis-benchmark"

# a snapshot by a child, while keys change
client bgsave >/dev/null
timeout 60 redis-benchmark -s "$work/socket" -n 2000 -r 1000 -t incr,lpush -q >/dev/null || fail "redis-benchmark beside the snapshot"
for _ in $(seq 600); do
	client info persistence | grep -q rdb_bgsave_in_progress:0 && break
	sleep 0.1
done
client info persistence | grep -q rdb_last_bgsave_status:ok || fail "the snapshot"

# a device goes under load
timeout 60 redis-benchmark -s "$work/socket" -n 6000 -r $keys -t get,incr -q >/dev/null &
load=$!
"$S" device pull dev1 >/dev/null
wait $load || fail "redis-benchmark after the pull"
[ "$(stored)" = "$(values)" ] || fail "values are others after the pull"
client shutdown nosave || true
await_end 0

# what the child wrote is what was there at that moment, by a server without the pool
redis-server --port 0 --unixsocket "$work/socket" --save "" --dir "$work" --enable-debug-command yes >"$work/log" 2>&1 &
server=$!
for _ in $(seq 300); do
	client ping 2>/dev/null | grep -q PONG && break
	sleep 0.1
done
[ "$(client debug digest)" = "$digest" ] || fail "the snapshot holds something else"
client shutdown nosave || true
await_end 0
"$S" device plug dev1 >/dev/null

# ---- memcached ----
rm -f "$work/socket"
user=$(id -un)
start memcached -s "$work/socket" -m 64 -u "$user"
cat >"$work/keys.py" <<'TXT'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile("rwb")
value = lambda i: b"%01000d" % (i * 7919)
if sys.argv[2] == "set":
    for i in range(12000):
        f.write(b"set key:%d 0 0 1000 noreply\r\n%s\r\n" % (i, value(i)))
    f.write(b"version\r\n")
    f.flush()
    assert f.readline().startswith(b"VERSION")
right = 0
for i in range(12000):
    f.write(b"get key:%d\r\n" % i)
    f.flush()
    head = f.readline()
    if head.startswith(b"END"):
        sys.exit("key:%d is missing" % i)
    if f.read(1002)[:1000] != value(i) or f.readline() != b"END\r\n":
        sys.exit("key:%d holds something else" % i)
    right += 1
    if i == 4000 and len(sys.argv) > 3:
        import subprocess
        subprocess.run([sys.argv[3], "device", "pull", "dev2"], check=True, stdout=subprocess.DEVNULL)
print(right)
TXT
[ "$(timeout 60 /usr/bin/python3 "$work/keys.py" "$work/socket" set "$S")" = 12000 ] || fail "memcached's keys, with a pull in the middle"
[ "$(timeout 60 /usr/bin/python3 "$work/keys.py" "$work/socket" get)" = 12000 ] || fail "memcached's keys after the pull"
kill -TERM "$server"
await_end 0

"$S" down >/dev/null
