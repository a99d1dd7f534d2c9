#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What an operator is told when the daemons can't start: bad policy files, no TPM, another TPM, a missing or damaged sealed root, a store that
# is no database, an audit that is missing, cut or changed, a media folder without space. Each: exit status, and a sentence that names what is wrong; nothing is left running. timeout: 180
# shellcheck disable=SC2317 # functions are called by the trap and by expect
set -u
B=${B:?}
secpool=$B/bin/secpool
work=$(mktemp -d "${TMPDIR:-/tmp}/daemon-errors.XXXXXX")
pids=
cleanup() {
	# shellcheck disable=SC2086 # a list of ids
	[ -z "$pids" ] || kill $pids 2>/dev/null
	"$secpool" down >/dev/null 2>&1
	rm -rf "$work"
}
trap cleanup EXIT
fail() {
	echo "failed: $1"
	[ -z "${2:-}" ] || sed 's/^/  /' "$2"
	exit 1
}

# expect STATUS 'PATTERN' WHAT COMMAND...
expect() {
	local wanted=$1 pattern=$2 what=$3 status
	shift 3
	"$@" >"$work/out" 2>&1
	status=$?
	[ "$status" = "$wanted" ] || fail "$what: exit status $status instead of $wanted" "$work/out"
	grep -qE "$pattern" "$work/out" || fail "$what: no line matches '$pattern'" "$work/out"
	printf '%s: %s\n' "$what" "$(grep -m1 -E "$pattern" "$work/out")"
}

# ---- policy files ----
good='version: 1
tenants:
  - name: one
    users: ["%self"]
    quota: {bytes: 1G, regions: 8, sessions: 4, local_bytes: 64M}
    protection: [xts-gmac]
    redundancy: [none]
    on_loss: [sigbus]
devices:
  enrol: first-use
  max_age_seconds: 3600
  firmware: [secpool-emulated-1.0]
recovery: none'
printf '%s\n' "$good" >"$work/good.yaml"
expect 0 '' 'good policy' "$secpool" policy check "$work/good.yaml"

# bad_policy LINE WHAT SED-EXPRESSION: names the file and that line
bad_policy() {
	sed -e "$3" "$work/good.yaml" >"$work/bad.yaml"
	cmp -s "$work/good.yaml" "$work/bad.yaml" && fail "$2: the test changed nothing"
	expect 1 "bad\.yaml:$1:" "$2" "$secpool" policy check "$work/bad.yaml"
}
bad_policy 5 'bad size' 's/bytes: 1G/bytes: 1Q/'
bad_policy 4 'unknown user' 's/%self/no-such-user-here/'
bad_policy 6 'protection that is not there' 's/xts-gmac/rot13/'
bad_policy 7 'unknown redundancy' 's/\[none\]/["mirror:9"]/'
bad_policy 8 'unknown loss mode' 's/sigbus/shrug/'
bad_policy '[0-9]+' 'unknown key' 's/^devices:/colour: red\ndevices:/'
bad_policy '[0-9]+' 'not YAML' 's/^tenants:/tenants: [/'
bad_policy '[0-9]+' 'another version' 's/version: 1/version: 2/'
bad_policy '[0-9]+' 'no version' '/version/d'
bad_policy '[0-9]+' 'a name with a slash' 's/name: one/name: on\/e/'
: >"$work/bad.yaml"
expect 1 'bad\.yaml' 'empty policy' "$secpool" policy check "$work/bad.yaml"
expect 1 'missing\.yaml' 'missing policy' "$secpool" policy check "$work/missing.yaml"
sed 's/bytes: 1G/bytes: 1Q/' "$work/good.yaml" >"$work/bad.yaml"
expect 1 'bad\.yaml:5:' 'up with a bad policy' "$secpool" up --devices 1 --device-bytes 8M --policy "$work/bad.yaml"
[ ! -e "$SECPOOL_RUNTIME_DIR/keymgr.sock" ] || fail "up with a bad policy left a socket"

# ---- explain: the rule that decides, with its line ----
explain() { "$secpool" policy explain --policy "$work/good.yaml" --tenant "$1" --user "${3:-$(id -u)}" --action "$2"; }
expect 0 'rule: .*good\.yaml:4: users$' 'explain: allowed' explain one create:8M
expect 3 'rule: .*good\.yaml:3: tenant$' 'explain: another user' explain one session 4000000000
expect 3 'rule: .*good\.yaml:2: tenants$' 'explain: no such tenant' explain two session
expect 3 'rule: .*good\.yaml:5: quota\.bytes$' 'explain: too large' explain one create:2G
expect 3 'rule: .*good\.yaml:7: redundancy$' 'explain: a mirror' explain one create:8M,mirror:2
expect 3 'rule: .*good\.yaml:8: on_loss$' 'explain: a loss mode' explain one create:8M,none,kill
expect 3 'rule: none' 'explain: what no policy allows' explain one create:8M,none,failover

# ---- wrong use ----
expect 2 '' 'unknown command' "$secpool" fly
expect 2 '' 'no command' "$secpool"
expect 2 '' 'unknown option' "$secpool" up --colour red
expect 1 'up' 'status of nothing' "$secpool" status
expect 1 '' 'device list of nothing' "$secpool" device list

# ---- TPMs and state ----
mkdir -m 700 "$work/run" "$work/state" "$work/tpm1" "$work/tpm2" "$work/other"
start_vtpm() { # NUMBER [--provision]
	"$B/bin/secpool-vtpm" --state "$work/tpm$1" --socket "$work/run/tpm$1.sock" ${2:+"$2"} >"$work/tpm$1.log" 2>&1 &
	vtpm=$!
	pids="$pids $vtpm"
	for _ in $(seq 100); do
		[ -S "$work/run/tpm$1.sock" ] && return 0
		kill -0 "$vtpm" 2>/dev/null || break
		sleep 0.05
	done
	fail "secpool-vtpm $1 did not start" "$work/tpm$1.log"
}
keymgrd() { # TPM [STATE]
	timeout 60 "$B/bin/secpool-keymgrd" --runtime-dir "$work/run" --state-dir "${2:-$work/state}" --policy "$work/good.yaml" --tpm "$1"
}
more= # an option more
# starts and ends once, in good order
provision() {
	"$B/bin/secpool-keymgrd" --runtime-dir "$work/run" --state-dir "$work/state" --policy "$work/good.yaml" --tpm "unix:$work/run/tpm1.sock" ${more:+"$more"} >"$work/keymgrd.log" 2>&1 &
	local pid=$!
	pids="$pids $pid"
	for _ in $(seq 200); do
		grep -q ' ready ' "$work/keymgrd.log" && break
		kill -0 "$pid" 2>/dev/null || fail "keymgrd did not start" "$work/keymgrd.log"
		sleep 0.05
	done
	kill -TERM "$pid"
	wait "$pid" || fail "keymgrd did not end in order" "$work/keymgrd.log"
}

expect 1 'TPM|tpm' 'a vTPM without state' timeout 20 "$B/bin/secpool-vtpm" --state "$work/tpm2" --socket "$work/run/none.sock"
start_vtpm 1 --provision
start_vtpm 2 --provision
expect 1 'tpm' 'no TPM' keymgrd "unix:$work/run/no-such-tpm.sock"
expect 1 'tpm|TPM' 'a TPM of no known kind' keymgrd "tabrmd:"
expect 1 'tpm|TPM' 'no TPM device' keymgrd "device:$work/no-such-device"
[ ! -e "$work/state/root.sealed" ] || fail "a root key was made without a TPM"
provision
grep -qi provision "$work/keymgrd.log" || fail "the first start does not say that it provisioned" "$work/keymgrd.log"
provision
sum=$(sha256sum <"$work/state/root.sealed")
expect 1 'TPM|tpm' 'another TPM' keymgrd "unix:$work/run/tpm2.sock"
mv "$work/state/root.sealed" "$work/other/"
expect 1 'root\.sealed' 'root.sealed is missing' keymgrd "unix:$work/run/tpm1.sock"
[ ! -e "$work/state/root.sealed" ] || fail "a new root key was made silently"
for at in 10 200; do
	cp "$work/other/root.sealed" "$work/state/root.sealed"
	printf '\377\000\377' | dd of="$work/state/root.sealed" bs=1 seek=$at conv=notrunc 2>/dev/null
	expect 1 'root\.sealed|TPM|tpm' "root.sealed is damaged at $at" keymgrd "unix:$work/run/tpm1.sock"
done
head -c 40 "$work/other/root.sealed" >"$work/state/root.sealed"
expect 1 'root\.sealed' 'root.sealed is cut' keymgrd "unix:$work/run/tpm1.sock"
cp "$work/other/root.sealed" "$work/state/root.sealed"
cp "$work/state/directory.db" "$work/other/"
rm -f "$work/state"/directory.db-*
head -c 8192 /dev/urandom >"$work/state/directory.db"
expect 1 'directory\.db' 'directory.db is damaged' keymgrd "unix:$work/run/tpm1.sock"
cp "$work/other/directory.db" "$work/state/directory.db"
sed 's/version: 1/version: 7/' "$work/good.yaml" >"$work/bad.yaml"
expect 1 'bad\.yaml:1:' 'keymgrd with a bad policy' timeout 60 "$B/bin/secpool-keymgrd" --runtime-dir "$work/run" --state-dir "$work/state" \
	--policy "$work/bad.yaml" --tpm "unix:$work/run/tpm1.sock"
# the audit: missing, cut off before its anchor, changed behind it, each refused by name; one that was moved away is begun anew only when that is said
cp "$work/state/audit" "$work/state/audit.anchor" "$work/other/"
rm "$work/state/audit.anchor"
expect 1 'audit\.anchor is missing' 'audit.anchor is missing' keymgrd "unix:$work/run/tpm1.sock"
rm "$work/state/audit"
expect 1 'audit\.anchor is missing.*--new-audit' 'the audit is missing' keymgrd "unix:$work/run/tpm1.sock"
cp "$work/other/audit.anchor" "$work/state/"
expect 1 'records are missing' 'the audit without its records' keymgrd "unix:$work/run/tpm1.sock"
head -n 2 "$work/other/audit" >"$work/state/audit"
expect 1 'records are missing' 'the audit is cut' keymgrd "unix:$work/run/tpm1.sock"
cp "$work/other/audit" "$work/state/"
tail -n 1 "$work/other/audit" >>"$work/state/audit"
expect 1 'does not follow' 'a record twice' keymgrd "unix:$work/run/tpm1.sock"
rm "$work/state/audit" "$work/state/audit.anchor"
[ "$sum" = "$(sha256sum <"$work/state/root.sealed")" ] || fail "root.sealed was changed on the way"
# which has a generation made: what it sealed of the old audit must not refuse the next start
more=--new-audit
provision
more=
"$secpool" audit list --audit "$work/state/audit" | grep -q 'the operator began a new audit' || fail "the new audit does not say so"
"$secpool" audit verify --audit "$work/state/audit" --anchor "$work/state/anchor.pem" >"$work/out" || fail "the new audit is not good" "$work/out"
# none of this touched the state: it still starts
provision

# ---- no space for media ----
expect 1 'the devices need 4 TiB' 'devices larger than the tmpfs' "$secpool" up --devices 4 --device-bytes 1T
[ ! -e "$SECPOOL_RUNTIME_DIR/keymgr.sock" ] || fail "a failed up left a socket"
exit 0
