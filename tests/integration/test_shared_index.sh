#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tests/examples/shared_index.c: a B-tree over this project's own sources and pages, built by one process and searched by ten others at a time; what they find is what grep finds. timeout: 180
set -eu
cd "$(dirname "$0")/../.."
B=${B:-build}
S=$B/bin/secpool
I=$B/tests/examples/shared_index
work=$(mktemp -d)
trap '"$S" down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
fail() { echo "$*" >&2; exit 1; }

cp policy/default.yaml "$work/policy.yaml"
# the default window is not free under TSan
[ "${SAN:-}" != tsan ] || printf 'window:\n  base: "0x004000000000"\n  bytes: 128G\n' >>"$work/policy.yaml"
"$S" up --policy "$work/policy.yaml" --devices 2 --device-bytes 160M >/dev/null
cat docs/*.md lib/*.[ch] enclave/*.[ch] >"$work/text"
tr -c 'A-Za-z0-9_' '\n' <"$work/text" | grep . | cut -c1-63 >"$work/words"
different=$(LC_ALL=C sort -u "$work/words" | wc -l)
said=$("$I" build "$work/text")
[ "$said" = "$different different words" ] || fail "build said '$said', there are $different"
"$S" region list --json | grep -q '"sealed"' || fail "no sealed region is listed"

# ten lists of words, of all parts of the alphabet, and what is to be found of them
LC_ALL=C sort "$work/words" | uniq -c | awk '{ print $2, $1 }' >"$work/counts"
for i in $(seq 0 9); do
	awk -v i="$i" 'NR % 40 == i { print $1 }' "$work/counts" >"$work/asked.$i"
	awk -v i="$i" 'NR % 40 == i' "$work/counts" >"$work/want.$i"
	# shellcheck disable=SC2046 # words without blanks
	"$I" find $(cat "$work/asked.$i") no_such_word_anywhere >"$work/found.$i" &
	pids[i]=$!
done
for i in $(seq 0 9); do
	wait "${pids[i]}" || fail "reader $i ended with $?"
	[ "$(tail -n 1 "$work/found.$i")" = "no_such_word_anywhere 0 0" ] || fail "reader $i found what is not there"
	sed '$d' "$work/found.$i" | cut -d ' ' -f 1,2 | cmp - "$work/want.$i" || fail "reader $i found something else than grep"
done
line=$(grep -n -m 1 -w pagecipher_seal "$work/text" | cut -d : -f 1)
[ "$("$I" find pagecipher_seal | cut -d ' ' -f 3)" = "$line" ] || fail "the first line is not $line"
"$I" end
! "$I" find secpool 2>/dev/null || fail "it is found after its end"
echo "$different words, ten readers"
