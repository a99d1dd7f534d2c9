#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A release's receipt from `destroyed` to `durable`: by command, with the real daemons, also through a kill -9 of the key manager, and in an older copy of the state folder.
# timeout: 180
set -u
B=${B:-build}
SECPOOL_RUNTIME_DIR=${SECPOOL_RUNTIME_DIR:-/dev/shm/spt-receipt.$$}
export SECPOOL_RUNTIME_DIR
S=$B/bin/secpool
OUT=$(mktemp)
FILE=$(mktemp)
failures=0

cleanup() {
	"$S" down >/dev/null 2>&1
	rm -f "$OUT" "$FILE"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# expect STATUS WORDS COMMAND...: the status, and the words in what it prints
expect() {
	status=$1
	words=$2
	shift 2
	"$@" >"$OUT" 2>&1
	got=$?
	[ $got -eq "$status" ] || { echo "FAILED: $* -> $got, not $status"; cat "$OUT"; failures=$((failures + 1)); }
	grep -q -e "$words" "$OUT" || { echo "FAILED: $*: no '$words'"; cat "$OUT"; failures=$((failures + 1)); }
}

# the receipt with this number, once it is there
receipt() {
	for _ in $(seq 600); do
		"$S" receipt get "$1" >"$FILE" 2>/dev/null && return
		sleep 0.1
	done
	echo "FAILED: receipt $1 does not come"
	exit 1
}

expect 0 '3 online' "$S" up --devices 3 --device-bytes 64M
expect 1 'no receipt 1' "$S" receipt get 1
expect 1 'no receipt' "$S" receipt get 1x
expect 2 'usage' "$S" receipt get
expect 0 '' "$B/tests/examples/vault" -b 1 -l 16 docs
receipt 1
expect 0 'durable: no, backup-proof: no' "$S" receipt verify "$FILE"
cp "$FILE" "$FILE.first"
expect 0 'generation [0-9]*: [1-9][0-9]* keys are destroyed durably' "$S" keystore anchor
receipt 1
expect 0 'durable: yes, backup-proof: no' "$S" receipt verify "$FILE" --anchor "$SECPOOL_RUNTIME_DIR/state/anchor.pem"
expect 0 '"durable":true' "$S" receipt verify "$FILE" --json
expect 0 'anchored' "$S" events

# the chain is of the receipts as they were first signed
expect 0 '' "$B/tests/examples/vault" -b 1 -l 16 docs
receipt 2
expect 0 "$("$S" receipt verify "$FILE.first" | sed -n 's/^  SHA-256 *//p')" "$S" receipt verify "$FILE"
rm -f "$FILE.first"

# killed before it is anchored: the next run makes it durable
kill -9 "$(cut -d' ' -f1 "$SECPOOL_RUNTIME_DIR/keymgrd.pid")"
expect 0 '3 online' "$S" up --devices 3 --device-bytes 64M
receipt 2
expect 0 'durable: no' "$S" receipt verify "$FILE"
expect 0 'generation' "$S" keystore anchor
receipt 2
expect 0 'durable: yes' "$S" receipt verify "$FILE"

# an older audit with its older anchor is refused: the generation sealed how many records there were
mkdir "$SECPOOL_RUNTIME_DIR/older" "$SECPOOL_RUNTIME_DIR/newer"
cp -a "$SECPOOL_RUNTIME_DIR/state/audit" "$SECPOOL_RUNTIME_DIR/state/audit.anchor" "$SECPOOL_RUNTIME_DIR/older/"
expect 0 '' "$B/tests/examples/vault" -b 1 -l 16 docs
expect 0 'generation' "$S" keystore anchor
kill -9 "$(cut -d' ' -f1 "$SECPOOL_RUNTIME_DIR/keymgrd.pid")"
cp -a "$SECPOOL_RUNTIME_DIR/state/audit" "$SECPOOL_RUNTIME_DIR/state/audit.anchor" "$SECPOOL_RUNTIME_DIR/newer/"
cp -a "$SECPOOL_RUNTIME_DIR/older/." "$SECPOOL_RUNTIME_DIR/state/"
expect 1 'did not start' "$S" up --devices 3 --device-bytes 64M
expect 0 'sealed with the key store.*rolled back.*--new-audit' cat "$SECPOOL_RUNTIME_DIR/log/keymgrd.log"
cp -a "$SECPOOL_RUNTIME_DIR/newer/." "$SECPOOL_RUNTIME_DIR/state/"
expect 0 '3 online' "$S" up --devices 3 --device-bytes 64M

# a copy of the state folder of before is refused
cp -a "$SECPOOL_RUNTIME_DIR/state" "$SECPOOL_RUNTIME_DIR/old"
expect 0 'generation' "$S" keystore anchor
kill -9 "$(cut -d' ' -f1 "$SECPOOL_RUNTIME_DIR/keymgrd.pid")"
rm -rf "$SECPOOL_RUNTIME_DIR/old/host-tpm"
cp -a "$SECPOOL_RUNTIME_DIR/old/." "$SECPOOL_RUNTIME_DIR/state/"
expect 1 'did not start' "$S" up --devices 3 --device-bytes 64M
expect 0 'rolled back.*put back the newest' cat "$SECPOOL_RUNTIME_DIR/log/keymgrd.log"

[ $failures -eq 0 ] || exit 1
echo "receipts become durable"
