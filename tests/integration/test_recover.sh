#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# As an operator does it: a store is provisioned on swtpm, that TPM is lost, and the store is moved to another swtpm, then to a secpool-vtpm. The recovery key is nowhere but on the terminal. What is wrong is refused. timeout: 300
set -u
B=$(cd "${B:-build}" && pwd)
S=$B/bin/secpool
command -v swtpm >/dev/null || { echo "swtpm is missing: make deps"; exit 1; }
work=$(mktemp -d /dev/shm/spk.XXXXXX)
mkdir -m 700 "$work/tpm1" "$work/tpm2" "$work/run"
sock=$work/tpm.sock
export SECPOOL_RUNTIME_DIR=$work/run
tpm='' keymgrd=''
cleanup() {
	for dir in up over; do SECPOOL_RUNTIME_DIR=$work/$dir "$S" down >/dev/null 2>&1; done
	for pid in $keymgrd $tpm; do kill -KILL "$pid" 2>/dev/null; done
	rm -rf "$work"
}
trap cleanup EXIT
fail() {
	echo "failed: $*" >&2
	tail -n 15 "$work"/*.log >&2
	exit 1
}
until_true() { # CONDITION WHAT: asked every 50 ms for 60 s
	for _ in $(seq 1200); do
		eval "$1" && return 0
		sleep 0.05
	done
	fail "$2"
}
start_tpm() { # STATE
	if [ "$1" = vtpm ]; then
		"$B/bin/secpool-vtpm" --state "$work/vtpm" --socket "$sock" --provision >"$work/tpm.log" 2>&1 &
	else
		swtpm socket --tpm2 --tpmstate "dir=$work/$1" --server "type=unixio,path=$sock,mode=0600" --flags not-need-init,startup-clear >"$work/tpm.log" 2>&1 &
	fi
	tpm=$!
	until_true '[ -S "$sock" ]' "no TPM"
}
lose_tpm() {
	kill -KILL "$tpm"
	wait "$tpm" 2>/dev/null
	rm -f "$sock"
	tpm=''
}
keystore() { "$S" keystore "$@" --state-dir "$work/state" --policy "$work/policy.yaml" --tpm "unix:$sock"; }
start_keymgrd() {
	: >"$work/keymgrd.log"
	"$B/bin/secpool-keymgrd" --runtime-dir "$work/run" --state-dir "$work/state" --policy "$work/policy.yaml" --tpm "unix:$sock" >>"$work/keymgrd.log" 2>&1 &
	keymgrd=$!
	until_true 'grep -q " ready " "$work/keymgrd.log" || ! kill -0 "$keymgrd" 2>/dev/null' "keymgrd did not get ready"
	grep -q ' ready ' "$work/keymgrd.log"
}
stop_keymgrd() {
	kill -TERM "$keymgrd"
	wait "$keymgrd" || fail "keymgrd did not end in order"
	keymgrd=''
}
refused() { # PATTERN WHAT, of the command before
	grep -qE "$1" "$work/out.log" || fail "$2: $(tail -n 3 "$work/out.log")"
}
# what the operator knows of the store: from a receipt, and from a copy of the audit
known() { # FOLDER
	head=$("$S" audit verify --audit "$1/state/audit" --json | tr -d ' \n' | grep -o '"head":"[0-9a-f]*"' | cut -d '"' -f 4)
	[ ${#head} = 64 ] || fail "no head of the audit"
}

cat >"$work/policy.yaml" <<'TXT'
version: 1
host_pcrs: [7]
allow: {memfd_without_secret: true}
tenants:
  - {name: default, users: ["%self"], quota: {bytes: 1G, regions: 8, sessions: 4, local_bytes: 64M}}
TXT
[ "${SAN:-}" != tsan ] || printf 'window:\n  base: "0x004000000000"\n  bytes: 128G\n' >>"$work/policy.yaml"

# ---- provisioned by hand: a daemon alone has nowhere to show the key ----
start_tpm tpm1
start_keymgrd && fail "a daemon made a store, and its recovery key was shown to nobody"
grep -q 'secpool keystore provision' "$work/keymgrd.log" || fail "it does not say what to do"
[ ! -e "$work/state/root.sealed" ] || fail "there is a store"
key1=$(keystore provision 2>"$work/out.log") || fail "provision"
[[ $key1 =~ ^SPR1(-[A-Z2-7]{4}){14}$ ]] || fail "that is no recovery key: '$key1'"
[ -z "$(keystore provision 2>>"$work/out.log")" ] || fail "a second provision shows something"
start_keymgrd || fail "the store does not open"
"$S" keystore anchor >"$work/anchor.log" || fail anchor
generation=$(grep -oE 'generation [0-9]+' "$work/anchor.log" | cut -d ' ' -f 2)
stop_keymgrd
known "$work"

# ---- the TPM is lost: an error, and no new root ----
lose_tpm
start_tpm tpm2
start_keymgrd && fail "another TPM opens the store"
grep -q 'secpool keystore recover' "$work/keymgrd.log" || fail "it does not say what to do"
cp -a "$work/state" "$work/before"

# ---- what is refused, and changes nothing ----
keystore recover <<<"$key1" >"$work/out.log" 2>&1 && fail "a recovery without the operator's word"
refused 'generation and --audit-head are needed' "nothing confirmed"
wrong=SPR1-$(head -c 35 /dev/zero | base32 | fold -w 4 | paste -sd -)
keystore recover --generation "$generation" --audit-head "$head" <<<"$wrong" >"$work/out.log" 2>&1 && fail "a wrong key"
refused mistyped "a wrong key"
keystore recover --generation $((generation + 1)) --audit-head "$head" <<<"$key1" >"$work/out.log" 2>&1 && fail "another generation"
refused "is of generation $generation, not of $((generation + 1))" "another generation"
keystore recover --generation "$generation" --audit-head "${head//[0-7]/8}" <<<"$key1" >"$work/out.log" 2>&1 && fail "another audit"
refused 'its head is another than was given' "another audit"
grep -qi "$head" "$work"/*.log && fail "the refusal says which head to give"
for file in root.sealed signer.wrapped host.ak anchor.pem nodes wraps audit; do
	cmp "$work/state/$file" "$work/before/$file" || fail "a refused recovery changed $file"
done

# ---- moved, and moved again ----
key2=$(keystore recover --generation "$generation" --audit-head "$head" <<<"$key1" 2>"$work/out.log") || fail "recover"
[[ $key2 =~ ^SPR1(-[A-Z2-7]{4}){14}$ ]] && [ "$key1" != "$key2" ] || fail "no new recovery key: '$key2'"
refused 'Clear the old TPM' "what to do with the old TPM"
"$S" audit list --audit "$work/state/audit" | grep -q 'recovered.*freshness: asserted' || fail "the audit does not say 'freshness: asserted'"
"$S" audit verify --audit "$work/state/audit" --anchor "$work/state/anchor.pem" >"$work/out.log" 2>&1 || fail "the audit does not verify by the new TPM's key"
"$S" audit verify --audit "$work/state/audit" --anchor "$work/before/anchor.pem" >"$work/out.log" 2>&1 || fail "the audit does not verify by the old TPM's key"
start_keymgrd || fail "it does not open after the recovery"
"$S" events | grep -q recovered || fail "no event says that it was recovered"
"$S" keystore anchor >"$work/anchor.log" || fail anchor
second=$(grep -oE 'generation [0-9]+' "$work/anchor.log" | cut -d ' ' -f 2)
[ "$second" -gt "$generation" ] || fail "generations went back"
stop_keymgrd
# a backup from before does not open with the TPM of now
mv "$work/state" "$work/now"
cp -a "$work/before" "$work/state"
start_keymgrd && fail "an old backup opens with the new TPM"
rm -rf "$work/state"
mv "$work/now" "$work/state"
lose_tpm
start_tpm vtpm
known "$work"
keystore recover --generation "$second" --audit-head "$head" <<<"$key1" >"$work/out.log" 2>&1 && fail "the first key moves it again"
refused 'this recovery key does not open it' "the first key"
key3=$(keystore recover --generation "$second" --audit-head "$head" <<<"$key2" 2>"$work/out.log") || fail "recover again"
start_keymgrd || fail "it does not open after the second recovery"
stop_keymgrd

# ---- the embedded default shows one too, where the policy asks for it; whoever reads that is not kept waiting ----
key4=$(SECPOOL_RUNTIME_DIR=$work/up timeout 60 "$S" up --devices 0 --policy "$work/policy.yaml" | grep -o 'SPR1-.*') || fail "up shows no recovery key"
SECPOOL_RUNTIME_DIR=$work/up "$S" keystore anchor >/dev/null || fail "no generation with a recovery key"

# ---- a release is no more durable over a recovery than it was known to be: the numbers between were never counted by the TPM that is gone ----
over() { SECPOOL_RUNTIME_DIR=$work/over "$@"; }
pool_up() { over timeout 120 "$S" up --devices 2 --device-bytes 64M --policy "$work/default.yaml"; }
anchor() { over "$S" keystore anchor >/dev/null || fail anchor; }
release() { over "$B/tests/examples/vault" -b 1 -l 16 docs >"$work/out.log" 2>&1 || fail "no region"; }
receipt_says() { # NUMBER WHAT
	until_true 'over "$S" receipt get '"$1"' >"$work/receipt" 2>/dev/null' "receipt $1 does not come"
	over "$S" receipt verify "$work/receipt" >"$work/out.log" 2>&1 || fail "receipt $1"
	refused "durable: $2, backup-proof: no" "receipt $1"
}
lose_tpm
rm -rf "$work/vtpm"
sed 's/^recovery: none/recovery: key/' policy/default.yaml >"$work/default.yaml"
key5=$(pool_up | grep -o 'SPR1-.*') || fail "up shows no recovery key"
release
receipt_says 1 no
anchor
receipt_says 1 yes
release
receipt_says 2 no
next=$(grep -oE 'generation.?":[0-9]+' "$work/receipt" | grep -oE '[0-9]+')
for name in keymgrd vtpm; do
	pid=$(cut -d ' ' -f 1 "$work/over/$name.pid")
	kill -TERM "$pid"
	until_true '! kill -0 "$pid" 2>/dev/null' "$name does not end"
done
rm -rf "$work/over/state/host-tpm"
start_tpm vtpm
known "$work/over"
key6=$("$S" keystore recover --generation $((next - 1)) --audit-head "$head" --state-dir "$work/over/state" --policy "$work/default.yaml" --tpm "unix:$sock" <<<"$key5" 2>"$work/out.log") || fail "recover by what the receipt says"
lose_tpm
mv "$work/vtpm" "$work/over/state/host-tpm"
pool_up >"$work/out.log" 2>&1 || fail "up after the recovery"
receipt_says 1 no
receipt_says 2 no
release
receipt_says 3 no
anchor
receipt_says 1 no
receipt_says 2 no
receipt_says 3 yes

# ---- the key was shown, and is nowhere else ----
for key in "$key1" "$key2" "$key3" "$key4" "$key5" "$key6"; do
	grep -rlF -e "$key" -e "${key//-/}" "$work" && fail "a recovery key is in a file"
done
echo "recovered twice: swtpm, swtpm, secpool-vtpm"
