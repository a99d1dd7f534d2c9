#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The main job: real files kept encrypted in pool memory, one device pulled half-way, nothing lost; then redis-server as it is, likewise.        (make demo)
#
# Brings up the embedded default (three emulated devices) in a folder of its own, or in $SECPOOL_RUNTIME_DIR, and takes it down at the end,
# whatever happens. Needs about 3 GiB of free memory with the default settings.
#   DEMO_FOLDER        what is read, folders separated by blanks (/usr/lib /usr/share)
#   DEMO_BYTES         how much of it at least (512M)
#   DEMO_DEVICE_BYTES  size of each device (DEMO_BYTES and 256M)
#   DEMO_LOCAL         plaintext in local memory at most (64M)
#   DEMO_REDIS_BYTES   how much data redis-server gets (64M)
#   DEMO_POLICY, DEMO_TENANT   policy file and tenant (those of `secpool up`)
set -eu

cd "$(dirname "$0")/.."
B=${B:-build}
B=$(cd "$B" && pwd)
secpool=$B/bin/secpool
pulled=dev1

to_mib() { echo $(($(numfmt --from=iec "$1") / 1048576)); }

# Waits until the pulled device's space is scrubbed: what is left to scrub stands in the listing.
wait_scrubbed() {
	local left=
	for _ in $(seq 600); do
		left=$("$secpool" device list --json | tr -d ' \n' | sed 's/},/}\n/g' |
			sed -n "s/.*\"id\":\"$pulled\".*\"unscrubbed_bytes\":\([0-9]*\).*/\1/p")
		[ "$left" = 0 ] && return 0
		sleep 0.1
	done
	echo "demo: $pulled still has ${left:-unknown} bytes to scrub after 60 s; see $SECPOOL_RUNTIME_DIR/log" >&2
	return 1
}

# What vault calls half-way, and before it releases its region.
case ${1:-} in
pull)
	"$secpool" device pull "$pulled" >/dev/null
	printf '\n  >>> %s was pulled\n' "$pulled"
	exit 0
	;;
plug)
	echo "  >>> plugging $pulled in again: attest, scrub"
	"$secpool" device plug "$pulled" >/dev/null
	wait_scrubbed
	"$secpool" device list
	exit 0
	;;
esac

work=$(mktemp -d "${TMPDIR:-/tmp}/secpool-demo.XXXXXX")
if [ -z "${SECPOOL_RUNTIME_DIR:-}" ]; then
	SECPOOL_RUNTIME_DIR=$work/run
fi
export SECPOOL_RUNTIME_DIR B

finish() {
	status=$?
	trap - EXIT INT TERM
	[ -z "${vault:-}" ] || kill "$vault" 2>/dev/null || true
	if [ -S "$SECPOOL_RUNTIME_DIR/keymgr.sock" ] || [ "$status" != 0 ]; then
		[ "$status" = 0 ] || tail -n 5 "$SECPOOL_RUNTIME_DIR"/log/*.log 2>/dev/null || true
		"$secpool" down >/dev/null || status=1
	fi
	rm -rf "$work"
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

bytes=${DEMO_BYTES:-512M}
device_bytes=${DEMO_DEVICE_BYTES:-$(($(to_mib "$bytes") / 2 * 2 + 256))M}
# shellcheck disable=SC2206 # folders, separated by blanks
folders=(${DEMO_FOLDER:-/usr/lib /usr/share})

echo "secpool demo: ${folders[*]} into encrypted pool memory; $pulled is pulled half-way"
"$secpool" up --devices 3 --device-bytes "$device_bytes" ${DEMO_POLICY:+--policy "$DEMO_POLICY"}
"$B/tests/examples/vault" -b "$(to_mib "$bytes")" -l "$(to_mib "${DEMO_LOCAL:-64M}")" -t "${DEMO_TENANT:-default}" \
	-m "tests/demo.sh pull" -r "tests/demo.sh plug" -o "$work/receipt.json" "${folders[@]}" &
vault=$!
wait "$vault" || { vault=; echo "demo: vault failed" >&2; exit 1; }
vault=

echo
"$secpool" receipt verify "$work/receipt.json" --anchor "$SECPOOL_RUNTIME_DIR/state/anchor.pem"
tests/demo_redis.sh "$work" dev2
echo
"$secpool" status
"$secpool" down
cat <<TXT

Done: every file and every key came back as it was, with one of three devices gone in the middle.
Where to look next: tests/examples/vault.c (the program), README.md (using the library), docs/architecture.md, docs/caveats.md
TXT
