#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# swtpm, over its own socket, as the host's TPM: a whole start, a client with keys, restarts, power loss of the TPM; one that hangs (before a start, while the daemon runs, at a reload), is not started, is gone, or
# was swapped: an error that says so in bounded time, and never a new root key. timeout: 300
set -u
B=$(cd "${B:-build}" && pwd)
S=$B/bin/secpool
command -v swtpm >/dev/null || { echo "swtpm is missing: make deps"; exit 1; }
work=$(mktemp -d /dev/shm/sph.XXXXXX)
mkdir -m 700 "$work/state" "$work/tpm1" "$work/tpm2" "$work/run"
sock=$work/tpm.sock
tpm='' keymgrd='' hotplugd=''
cleanup() {
	for pid in $keymgrd $hotplugd $tpm; do
		kill -CONT "$pid" 2>/dev/null
		kill -KILL "$pid" 2>/dev/null
	done
	SECPOOL_RUNTIME_DIR=$work/up "$S" down >/dev/null 2>&1
	rm -rf "$work"
}
trap cleanup EXIT
fail() {
	echo "failed: $*" >&2
	tail -n 15 "$work"/*.log >&2
	exit 1
}
# until 'CONDITION' WHAT: asked every 50 ms for 60 s
until_true() {
	for _ in $(seq 1200); do
		eval "$1" && return 0
		sleep 0.05
	done
	fail "$2"
}

# ---- what is started ----
start_tpm() { # STATE [FLAGS]
	swtpm socket --tpm2 --tpmstate "dir=$work/$1" --server "type=unixio,path=$sock,mode=0600" --flags "${2:-not-need-init,startup-clear}" >"$work/tpm.log" 2>&1 &
	tpm=$!
	until_true '[ -S "$sock" ]' "swtpm did not start"
}
# kill -9: the power goes
stop_tpm() {
	kill -CONT "$tpm"
	kill -KILL "$tpm"
	wait "$tpm" 2>/dev/null
	rm -f "$sock"
	tpm=''
}
spawn_keymgrd() {
	: >"$work/keymgrd.log" # here: the redirection of a job in the background comes later
	"$B/bin/secpool-keymgrd" --runtime-dir "$work/run" --state-dir "$work/state" --policy "$work/policy.yaml" --tpm "unix:$sock" >>"$work/keymgrd.log" 2>&1 &
	keymgrd=$!
}
start_keymgrd() {
	spawn_keymgrd
	until_true 'grep -q " ready " "$work/keymgrd.log" || ! kill -0 "$keymgrd" 2>/dev/null' "keymgrd did not get ready"
	grep -q ' ready ' "$work/keymgrd.log" || fail "keymgrd did not start"
}
stop_keymgrd() {
	kill -TERM "$keymgrd"
	wait "$keymgrd" || fail "keymgrd did not end in order"
	keymgrd=''
}
# the sealed root key, as a sum of what there is
sealed() { sha256sum <"$([ -e "$work/state/root.sealed" ] && echo "$work/state/root.sealed" || echo /dev/null)"; }
# it must not start, and say why; at most 75 s: the enclave's own bound is 60
expect_refused() { # PATTERN WHAT
	local began
	began=$(date +%s)
	spawn_keymgrd
	until_true '! kill -0 "$keymgrd" 2>/dev/null' "$2: keymgrd does not end"
	wait "$keymgrd" && fail "$2: it started"
	keymgrd=''
	[ $(($(date +%s) - began)) -lt 75 ] || fail "$2: it took $(($(date +%s) - began)) s"
	grep -qE "$1" "$work/keymgrd.log" || fail "$2: the log does not say '$1'"
	[ "$sum" = "$(sealed)" ] || fail "$2: root.sealed was changed"
	echo "$2: $(grep -oE "$1.*" "$work/keymgrd.log" | head -n 1 | cut -c 1-100)"
}
# a client with a region and its keys, from its session to its receipt
use() {
	SECPOOL_RUNTIME_DIR=$work/run "$B/tests/examples/vault" -b 1 -l 8 /etc >"$work/vault.log" 2>&1 || fail "$1: no client can work"
}

# ---- the policy of the embedded default, and two devices ----
SECPOOL_RUNTIME_DIR=$work/up "$S" up --devices 0 >/dev/null || fail up
cp "$work/up/policy.yaml" "$work/policy.yaml"
SECPOOL_RUNTIME_DIR=$work/up "$S" down >/dev/null || fail down
for id in dev0 dev1; do
	mkdir -p "$work/devices/$id"
	printf '{"id":"%s","serial":"S-%s","bytes":16777216,"firmware":"secpool-emulated-1.0","domain":"%s","kind":"emulated"}' $id $id $id >"$work/devices/$id/identity.json"
done
sum=$(sealed)

# ---- no TPM yet: nothing is made ----
expect_refused "nobody listens|$sock" "no TPM"
start_tpm tpm1 not-need-init
expect_refused 'not started \(TPM2_Startup\)' "a TPM that nobody started"
stop_tpm
start_tpm tpm1
kill -STOP "$tpm"
expect_refused 'no answer in time' "a TPM that hangs, before there is a root key"
[ ! -e "$work/state/root.sealed" ] || fail "a root key was made without a TPM"
kill -CONT "$tpm"

# ---- a whole start, a client, restarts ----
start_keymgrd
grep -qi provision "$work/keymgrd.log" || fail "the first start does not say that it provisioned"
sum=$(sealed)
"$B/bin/secpool-hotplugd" --runtime-dir "$work/run" --devices "$work/devices" >"$work/hotplugd.log" 2>&1 &
hotplugd=$!
# both, and all of them overwritten: else there may be no space yet
online() {
	local list
	list=$(SECPOOL_RUNTIME_DIR=$work/run "$S" device list --json 2>/dev/null | tr -d ' \n')
	[ "$(grep -o '"state":"online"' <<<"$list" | wc -l)" = 2 ] && [ "$(grep -oE '"unscrubbed_bytes":0[,}]' <<<"$list" | wc -l)" = 2 ]
}
until_true online "the devices do not come online"
use "first start"
SECPOOL_RUNTIME_DIR=$work/run "$S" status | grep -qi 'IBM\|SW' || fail "status does not name the TPM: $(SECPOOL_RUNTIME_DIR=$work/run "$S" status)"
stop_keymgrd
start_keymgrd
grep -qi provisioned "$work/keymgrd.log" && fail "the second start provisioned"
until_true online "the devices do not come back"
use "second start"

# ---- it hangs while the daemon runs: who has a session notices nothing; a reload needs it, and fails closed ----
kill -STOP "$tpm"
use "the TPM hangs"
began=$(date +%s)
kill -HUP "$keymgrd"
until_true '! kill -0 "$keymgrd" 2>/dev/null' "a reload waits for a TPM that hangs"
wait "$keymgrd" && fail "a reload without a TPM ends in order"
keymgrd=''
[ $(($(date +%s) - began)) -lt 75 ] || fail "a reload took $(($(date +%s) - began)) s"
grep -q 'no answer in time' "$work/keymgrd.log" || fail "the reload does not say that the TPM hangs"
expect_refused 'no answer in time' "a TPM that hangs"
kill -CONT "$tpm"
start_keymgrd
until_true online "the devices do not come back after the TPM woke up"
use "after the TPM woke up"
stop_keymgrd

# ---- the TPM's power goes, again and again: no lock-out, the same keys ----
for _ in 1 2 3 4; do
	stop_tpm
	start_tpm tpm1
	start_keymgrd
	kill -KILL "$keymgrd" # and the host's with it
	wait "$keymgrd" 2>/dev/null
	until_true '! pgrep -f "secpool-enclave.*$work/state" >/dev/null' "the enclave outlives its front"
done
start_keymgrd
until_true online "the devices do not come back after the power did"
use "after power losses"
stop_keymgrd

# ---- another TPM, then none, then the right one ----
stop_tpm
start_tpm tpm2
expect_refused 'sealed to another TPM|it was cleared, or is another TPM' "a TPM that was swapped"
stop_tpm
expect_refused "nobody listens|$sock" "a TPM that is gone"
# its state is gone: swtpm silently makes itself a new one; we do not
cp -a "$work/tpm1" "$work/kept"
rm -f "$work/tpm1"/*
start_tpm tpm1
expect_refused 'sealed to another TPM|it was cleared, or is another TPM' "a TPM whose state was lost"
stop_tpm
rm -rf "$work/tpm1"
mv "$work/kept" "$work/tpm1"
start_tpm tpm1
start_keymgrd
until_true online "the devices do not come back with the right TPM"
use "with the right TPM again"
stop_keymgrd
echo "swtpm as the host's TPM: starts, restarts, hangs, is lost and swapped"
