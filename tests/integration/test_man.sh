#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The man pages of the library: each function of secpool.h is on exactly one page with its prototype as the header has it, and each page's example, cut out of the text as a reader would, is under 100 lines,
# compiles as strict C11 and prints on a real pool what the page says. timeout: 120
set -eu
cd "$(dirname "$0")/../.."
B=$(realpath "${B:-build}")
S=$B/bin/secpool
case ${SAN:-} in
asan) flags='-fsanitize=address,undefined' ;;
tsan) flags='-fsanitize=thread' ;;
*) flags= ;;
esac
work=$(mktemp -d "${TMPDIR:-/tmp}/man.XXXXXX")
trap '[ -z "${up:-}" ] || "$S" down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

fail() { echo "$*" >&2; exit 1; }

# flat FILE: the text as prototypes are compared: one line, single blanks, none around brackets
flat() { tr -s ' \t\n' ' ' <"$1" | sed 's/( /(/g; s/ )/)/g'; }

# ---- each function, once ----
gcc -E -P -include stddef.h lib/secpool.h -Ilib/base >"$work/header"
tr -s ' \t\n' ' ' <"$work/header" | sed 's/__attribute__((warn_unused_result)) //g; s/#pragma[^;]*push(default) //; s/( /(/g; s/; /;\n/g' | grep -oE '^(const |enum |struct )?[a-z_0-9]+ \**secpool_[a-z_0-9]+\(.*\);' >"$work/prototypes"
[ "$(wc -l <"$work/prototypes")" -ge 25 ] || fail "few prototypes were found: $(cat "$work/prototypes")"
for page in docs/man/*.3.scd; do
	name=$(basename "$page" .scd)
	scdoc <"$page" | groff -t -man -Tascii -P-cbou -rLL=400n >"$work/$name"
	flat "$work/$name" >"$work/$name.flat"
	grep -A1 '^NAME' "$work/$name" | tail -n 1 | sed 's/ - .*//' | tr -d ' ' | tr ',' '\n' | sed "s/$/ $name/"
done >"$work/names"
while read -r prototype; do
	name=$(grep -oE 'secpool_[a-z_0-9]+\(' <<<"$prototype" | head -n 1 | tr -d '(')
	page=$(awk -v name="$name" '$1 == name { print $2 }' "$work/names")
	[ "$(wc -w <<<"$page")" = 1 ] || fail "$name is on these pages of section 3: ${page:-none}"
	grep -qF -- "$prototype" "$work/$page.flat" || fail "$page does not have: $prototype"
done <"$work/prototypes"
while read -r name page; do
	[ "$name" = libsecpool ] || grep -q "\b$name(" "$work/prototypes" || fail "$page: the header has no $name"
done <"$work/names"

# ---- examples ----
# cut PAGE: the literal blocks of its example, to PAGE.1 (the program) and PAGE.2 (what it prints)
cut_example() {
	rm -f "$1".[0-9]*
	awk -v to="$1" '
		/^[A-Z]/ { inside = $0 == "EXAMPLE"; next }
		!inside { next }
		/^           / { if (!code) { code = 1; count++; gap = "" } printf "%s%s\n", gap, substr($0, 12) >(to "." count); gap = ""; next }
		/^ *$/ { if (code) gap = gap "\n"; next }
		{ code = 0 }' "$1"
}

up=
if [ "${SAN:-}" != tsan ]; then # the default policy's window is not free under TSan
	up=yes
	"$S" up --devices 2 --device-bytes 128M >/dev/null
fi
examples=0
for page in "$work"/*.3; do
	cut_example "$page"
	[ -e "$page.1" ] || continue
	name=$(basename "$page")
	examples=$((examples + 1))
	mv "$page.1" "$page.c"
	[ "$(wc -l <"$page.c")" -lt 100 ] || fail "$name: an example of $(wc -l <"$page.c") lines"
	[ -s "$page.2" ] || fail "$name: nothing is said of what the example prints"
	# shellcheck disable=SC2086 # flags
	gcc -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -Wshadow -Werror $flags -Ilib -Ilib/base "$page.c" -L"$B/lib" -lsecpool -Wl,-rpath,"$B/lib" -o "$page.program" ||
		fail "$name: the example does not compile"
	[ -n "$up" ] || continue
	if grep -q '"ready"' "$page.c"; then
		"$page.program" >"$page.out" &
		pid=$!
		for _ in $(seq 600); do
			grep -q ready "$page.out" || ! kill -0 "$pid" 2>/dev/null && break
			sleep 0.05
		done
		"$S" device pull dev0 >/dev/null
		wait "$pid" || fail "$name: the example ends with $?"
		"$S" device plug dev0 >/dev/null
	else
		"$page.program" >"$page.out" || fail "$name: the example ends with $?"
	fi
	diff "$page.2" "$page.out" || fail "$name: the example prints (>) something else than the page says (<)"
	echo "$name: $(wc -l <"$page.c") lines"
done
[ "$examples" -ge 4 ] || fail "only $examples examples were found"
[ -z "$up" ] || "$S" down
up=
