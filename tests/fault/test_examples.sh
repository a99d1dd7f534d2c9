#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The example programs of the loss modes, each through a real pull of the device that has its region. timeout: 120
set -eu
cd "$(dirname "$0")/../.."
B=${B:-build}
S=$B/bin/secpool

"$S" up --devices 3 --device-bytes 128M >/dev/null

# the first device of the region's
device_of() {
	"$S" region list --json | tr -d '\n' | sed -n 's/.*"devices": *"\([a-z0-9]*\).*/\1/p'
}

work=$(mktemp -d)
trap '"$S" down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
trap '' PIPE

# play PROGRAM [ARG]: starts it, waits for "ready", pulls and plugs its device, lets it go on; what it says then is in $said, its status in $status
play() {
	local device pid
	rm -f "$work/in"
	mkfifo "$work/in"
	: >"$work/out"
	"$B/tests/examples/$1" ${2:+"$2"} <"$work/in" >"$work/out" &
	pid=$!
	exec 9>"$work/in"
	for _ in $(seq 600); do
		grep -q ready "$work/out" && break
		sleep 0.1
	done
	device=$(device_of)
	[ -n "$device" ] || { echo "$1: no device has its region"; exit 1; }
	"$S" device pull "$device" >/dev/null
	"$S" device plug "$device" >/dev/null
	echo >&9 || true # one that was killed reads no more
	exec 9>&-
	status=0
	wait "$pid" || status=$?
	said=$(tail -n +2 "$work/out")
}

expect() { # NAME STATUS TEXT
	[ "$status" = "$2" ] || { echo "$1 ended with $status, not $2: $said"; exit 1; }
	case $said in *"$3"*) ;; *) echo "$1 said: $said"; exit 1 ;; esac
	echo "$1: ${said:-killed}"
}

play failover
expect failover 0 'all numbers are right'
case $said in *'the other copies serve'*) ;; *) echo "failover was not told of: $said"; exit 1 ;; esac
play sigbus
expect sigbus 0 'all numbers are right'
play refill
expect refill 0 'all numbers are right'
play signalled
expect signalled 0 'told of a loss in region'
play signalled kill
expect 'signalled kill' 137 ''
