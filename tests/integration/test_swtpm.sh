#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# swtpm as a device's TPM, with a certificate by swtpm_setup: taken in by the policy's CA, evidence that tpm2_checkquote accepts, powered again, killed, hung. One with another CA's certificate and one without are refused,
# each with its own reason in the events. timeout: 300
set -u
B=$(cd "${B:-build}" && pwd)
S=$B/bin/secpool
for program in swtpm swtpm_setup tpm2_checkquote; do
	command -v $program >/dev/null || { echo "$program is missing: make deps"; exit 1; }
done
work=$(mktemp -d /dev/shm/sps.XXXXXX)
export SECPOOL_RUNTIME_DIR=$work/run
trap '"$S" down >/dev/null 2>&1; rm -rf "$work"' EXIT
fail() {
	echo "failed: $*" >&2
	"$S" device list >&2
	"$S" events | tail -n 15 >&2
	exit 1
}

# a private CA, as swtpm_localca makes it: $1
make_ca() {
	mkdir -p "$work/$1"
	printf 'statedir = %s\nsigningkey = %s/signkey.pem\nissuercert = %s/issuercert.pem\ncertserial = %s/certserial\n' \
		"$work/$1" "$work/$1" "$work/$1" "$work/$1" >"$work/$1/localca.conf"
	printf -- '--platform-manufacturer secpool\n--platform-version 1\n--platform-model emulated\n' >"$work/$1/localca.options"
	printf 'create_certs_tool=%s\ncreate_certs_tool_config=%s/localca.conf\ncreate_certs_tool_options=%s/localca.options\nactive_pcr_banks = sha256\n' \
		"$(command -v swtpm_localca)" "$work/$1" "$work/$1" >"$work/$1/setup.conf"
}

# a device's folder, ready to be moved to where hotplugd looks: id, the CA of its certificate or nothing
make_device() {
	local folder=$work/new/$1
	mkdir -p "$folder/tpm"
	printf '{"id":"%s","serial":"S-%s","bytes":16777216,"firmware":"secpool-emulated-1.0","domain":"domain-%s","kind":"emulated","tpm":"swtpm"}' \
		"$1" "$1" "$1" >"$folder/identity.json"
	[ -z "$2" ] || swtpm_setup --tpm2 --tpmstate "$folder/tpm" --config "$work/$2/setup.conf" --create-ek-cert >"$work/setup.log" 2>&1 || {
		cat "$work/setup.log" >&2
		fail "swtpm_setup of $1"
	}
}

plug() { mv "$work/new/$1" "$(readlink -f "$SECPOOL_RUNTIME_DIR/devices")/$1"; }
state() { "$S" device list 2>/dev/null | grep "^$1 " | tr -s ' ' | cut -d ' ' -f 2; }
wait_state() {
	for _ in $(seq 300); do
		[ "$(state "$1")" = "$2" ] && return 0
		sleep 0.05
	done
	fail "$1 is $(state "$1"), not $2"
}

make_ca good
make_ca other
make_device sw0 good
make_device sw1 other
make_device sw2 ""
cat "$work/good/issuercert.pem" "$work/good/swtpm-localca-rootca-cert.pem" >"$work/ca.pem"
echo 'version: 1' >"$work/policy.yaml"
[ "${SAN:-}" != tsan ] || printf 'window:\n  base: "0x004000000000"\n  bytes: 128G\n' >>"$work/policy.yaml"
cat >>"$work/policy.yaml" <<TXT
tenants:
  - name: default
    users: ["%self"]
    quota: {bytes: 1G, regions: 8, sessions: 4, local_bytes: 64M}
devices:
  enrol: first-use
  max_age_seconds: 3600
  firmware: [secpool-emulated-1.0]
TXT

# the embedded default's own device has no certificate: it is refused from the moment on at which the policy asks for one
"$S" up --devices 1 --device-bytes 16M --policy "$work/policy.yaml" >/dev/null || fail up
wait_state dev0 online
reload() {
	kill -HUP "$(grep -oE '^[0-9]+' "$SECPOOL_RUNTIME_DIR/keymgrd.pid" | head -n 1)"
	for _ in $(seq 200); do
		"$S" events 2>/dev/null | grep -q "$1" && return 0
		sleep 0.05
	done
	fail "no event $1"
}
used=$SECPOOL_RUNTIME_DIR/policy.yaml
echo "  ek_ca: [$work/none.pem]" >>"$used"
reload 'policy-refused.*none.pem'
[ "$(state dev0)" = online ] || fail "a policy that can't be used changed something"
sed -i "s,none.pem,ca.pem," "$used"
reload policy-reloaded
wait_state dev0 quarantined
"$S" events | grep -q 'attestation-refused.*dev0.*EK certificate is refused: the TPM has none' || fail "no reason for dev0"

plug sw0
wait_state sw0 online
plug sw1
wait_state sw1 quarantined
"$S" events | grep -q 'attestation-refused.*sw1.*no CA that the policy lists' || fail "no reason for sw1"
# a folder without a TPM is none that swtpm would make anew
plug sw2
sleep 0.5
[ "$(state sw2)" = online ] && fail "a TPM was made for sw2"
[ -e "$SECPOOL_RUNTIME_DIR/devices/sw2/tpm/tpm2-00.permall" ] && fail "a TPM was made for sw2"

checked() {
	"$S" device attest sw0 --evidence "$work/e" >/dev/null || fail "attest sw0 ($1)"
	(cd "$work/e" && tpm2_checkquote -u ak.pem -m quote.msg -s quote.sig -f quote.pcrs -l "$(cat pcr_selection)" -g sha256 -q "$(cat nonce.hex)" >/dev/null 2>&1) ||
		fail "tpm2_checkquote does not accept what was accepted ($1)"
}
checked "first"

# power: its PCRs begin anew and are measured again
"$S" device pull sw0 >/dev/null || fail "pull"
"$S" device plug sw0 >/dev/null || fail "plug"
wait_state sw0 online
checked "after a plug"

tpm_of() { cat /proc/[0-9]*/task/[0-9]*/children 2>/dev/null | tr ' ' '\n' | while read -r pid; do
	tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "swtpm.*devices/$1/tpm" && echo "$pid"
done | head -n 1; }

# the TPM dies: another process takes its place, with the same state
pid=$(tpm_of sw0)
[ -n "$pid" ] || fail "no process is the TPM of sw0"
kill -KILL "$pid"
for _ in $(seq 100); do
	next=$(tpm_of sw0)
	[ -n "$next" ] && [ "$next" != "$pid" ] && break
	sleep 0.05
done
checked "after its TPM's death"

# the TPM hangs: the command says so in a bounded time, and what was good before is not believed for longer than max_age
pid=$(tpm_of sw0)
kill -STOP "$pid"
start=$(date +%s)
"$S" device attest sw0 >"$work/hung" 2>&1 && fail "a TPM that hangs is attested"
[ $(($(date +%s) - start)) -lt 50 ] || fail "it took $(($(date +%s) - start)) s"
grep -q 'its TPM failed' "$work/hung" || fail "the command says: $(cat "$work/hung")"
kill -CONT "$pid"
checked "after it woke up"
echo "swtpm: taken in, refused without a good certificate, evidence accepted, TPM dead and hung"
