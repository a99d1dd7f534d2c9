#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `secpool device attest --evidence`: tpm2_checkquote of tpm2-tools accepts the files, and none of them changed; the event log replays to the quoted PCRs. timeout: 120
set -u
B=$(cd "${B:-build}" && pwd)
S=$B/bin/secpool
work=$(mktemp -d /dev/shm/spe.XXXXXX)
export SECPOOL_RUNTIME_DIR=$work/run
trap '"$S" down >/dev/null 2>&1; rm -rf "$work"' EXIT
fail() {
	echo "failed: $*" >&2
	exit 1
}

command -v tpm2_checkquote >/dev/null || fail "tpm2_checkquote is missing: make deps"
"$S" up --devices 2 --device-bytes 16M >/dev/null || fail up
"$S" device attest dev0 --evidence "$work/e" | grep -q 'evidence is in' || fail attest
cd "$work/e" || fail "no folder"
for file in ak.pem quote.msg quote.sig quote.pcrs pcr_selection nonce.hex eventlog; do
	[ -s "$file" ] || fail "$file is missing or empty"
done

check() {
	tpm2_checkquote -u ak.pem -m quote.msg -s quote.sig -f quote.pcrs -l "$(cat pcr_selection)" -g sha256 -q "$(cat nonce.hex)" >/dev/null 2>&1
}
check || fail "tpm2_checkquote does not accept what was accepted"

# one bit of each file changed, or another device's: refused
for file in quote.msg quote.sig quote.pcrs nonce.hex; do
	cp "$file" keep
	if [ "$file" = nonce.hex ]; then
		tr 0-9a-f 1-9a-f0 <keep >"$file"
	else
		size=$(stat -c %s "$file")
		byte=$(od -An -tu1 -j $((size - 1)) -N 1 "$file")
		# shellcheck disable=SC2059 # the byte is made by it
		printf "$(printf '\\%03o' $((byte ^ 1)))" | dd of="$file" bs=1 seek=$((size - 1)) conv=notrunc status=none
	fi
	check && fail "a changed $file is accepted"
	cp keep "$file"
done
"$S" device attest dev1 --evidence "$work/other" >/dev/null || fail "attest dev1"
cp ak.pem keep
cp "$work/other/ak.pem" ak.pem
check && fail "another device's key is accepted"
cp keep ak.pem
check || fail "the files were not put back"

# the log, read by somebody else's program: what it replays to is what was quoted
tpm2_eventlog eventlog >log.yaml 2>/dev/null || fail "tpm2_eventlog can't read the log"
for text in firmware:secpool-emulated device:dev0:16777216:; do
	grep -aq "$text" eventlog || fail "the log does not say $text"
done
n=0
for pcr in 0 2; do
	quoted=$(od -An -v -tx1 -j $((32 * n)) -N 32 quote.pcrs | tr -d ' \n')
	sed -n '/^pcrs:/,$p' log.yaml | grep -Eiq "^ *$pcr *: *0x$quoted" || fail "PCR $pcr: the log does not replay to $quoted"
	n=$((n + 1))
done

# who never was accepted has none
"$S" device pull dev1 >/dev/null || fail pull
"$S" device attest dev1 --evidence "$work/none" >/dev/null 2>&1 && fail "a device that is gone has evidence"
[ -e "$work/none" ] && fail "a folder was made for nothing"
echo "evidence: accepted, changed files refused, the log replays"
