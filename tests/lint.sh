#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Holds the house rules that a program can hold: format, layering, one door to each foreign library, banned calls, sizes, headers that
# compile alone, cppcheck, shellcheck.                                                                  (make lint)
# Each finding is a line "FILE:LINE: what is wrong"; the end is the number of findings. Exit status 1 when there are any.
set -u

cd "$(dirname "$0")/.." || exit 1
findings=$(mktemp)
trap 'rm -f "$findings"' EXIT
# what git knows, and what is new: not what is built
mapfile -t sources < <(git ls-files --cached --others --exclude-standard '*.c' | sort -u)
mapfile -t headers < <(git ls-files --cached --others --exclude-standard '*.h' | sort -u)
mapfile -t scripts < <(git ls-files --cached --others --exclude-standard '*.sh' .ci/run | sort -u)

found() { printf '%s\n' "$*" >>"$findings"; }

# ---- format ----
check_format() {
	clang-format --dry-run -Werror "${sources[@]}" 2>&1 | grep -E 'error:' |
		sed -E 's/: error: code should be clang-formatted.*/: run clang-format -i/' | sort -u -t: -k1,1 >>"$findings"
	awk 'length($0) > 400 { print FILENAME ":" FNR ": a line of " length($0) " bytes" }' "${headers[@]}" >>"$findings"
	for file in "${sources[@]}" "${headers[@]}"; do
		head -n 2 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' || found "$file:1: no SPDX line"
	done
}

# ---- layering: DESIGN.md section 3, "may include" ----
# folder -> the folders (or headers) of ours that it may include; its own is always allowed
may_include() {
	case $1 in
	lib/base) echo '' ;;
	lib/wire) echo 'lib/base' ;;
	# the sandboxed enclave speaks the wire and decides by the policy; the page cipher and secret memory need base only
	enclave) echo 'lib/base lib/wire policy' ;;
	enclave/vtpm) echo 'lib/base enclave' ;;
	# decides about values that come in messages: their enums
	policy) echo 'lib/base lib/wire/msg.h' ;;
	lib/preload) echo 'lib lib/base lib/wire' ;;
	lib) echo 'lib/base lib/wire enclave/pagecipher.h enclave/selftest.h enclave/secmem.h' ;;
	keymgr) echo 'lib/base lib/wire policy enclave/enclave.h enclave/keyfile.h enclave/prstream.h enclave/receipt.h' ;;
	hotplug) echo 'lib/base lib/wire policy enclave/eventlog.h enclave/tpm.h' ;;
	cli) echo 'lib/base lib/wire lib/secpool.h policy enclave/audit_verify.h enclave/quote_verify.h enclave/receipt.h' ;;
	tests/examples) echo 'secpool.h' ;;
	*) echo any ;;
	esac
}

folder_of() {
	local folder=${1%/*}
	case $folder in
	tests/examples) ;;
	tests | tests/*) folder=tests ;;
	esac
	echo "$folder"
}

check_layers() {
	local file folder allowed line target place ok
	for file in "${sources[@]}" "${headers[@]}"; do
		folder=$(folder_of "$file")
		allowed=$(may_include "$folder")
		[ "$allowed" = any ] && continue
		while IFS=: read -r line target; do
			place=${target%/*}
			ok=no
			case $target in
			*/*) ;;
			secpool_error.h | secpool.h) continue ;;
			esac
			[ "$place" = "$folder" ] && ok=yes
			for door in $allowed; do
				[ "$place" = "$door" ] || [ "$target" = "$door" ] && ok=yes
			done
			[ $ok = yes ] || found "$file:$line: $folder/ may not include $target (DESIGN.md section 3)"
		done < <(grep -nE '^#include "' "$file" | sed -E 's/^([0-9]+):#include "([^"]*)".*/\1:\2/')
	done
}

# one_door PATTERN 'WHERE ALLOWED, an extended regular expression' NAME
one_door() {
	grep -nE "$1" "${sources[@]}" "${headers[@]}" | grep -vE "^($2)" |
		sed -E "s|^([^:]*:[0-9]+):.*|\1: $3 has one door: ${2//|/ or }|" >>"$findings"
}

check_doors() {
	one_door '^#include <openssl/' 'enclave/|tests/' 'OpenSSL'
	one_door '^#include <tss2/' 'enclave/|tests/' 'tpm2-tss'
	one_door '^#include <libtpms/' 'enclave/|tests/' 'libtpms'
	one_door '^#include <(cxl|ndctl|daxctl)/' 'hotplug/topology\.c' 'libcxl'
	one_door '^#include <isa-l' 'lib/stripework\.c|tests/' 'ISA-L'
	one_door '^#include <linux/userfaultfd\.h>|(SYS|__NR)_userfaultfd' 'lib/uffd\.[ch]|tests/' 'userfaultfd'
	one_door '^#include <(cyaml/|yaml\.h)' 'policy/' 'libcyaml'
	one_door '^#include <sqlite3\.h>' 'keymgr/directory[a-z_]*\.[ch]|tests/' 'SQLite'
}

# ---- banned calls: STYLE.md rules 15, 17, 23. A reason stands on the line, or on the one before: /* lint: memcmp of public bytes */ ----
# banned 'CALLS' FILES...
banned() {
	local calls=$1
	shift
	[ $# -gt 0 ] || return 0
	awk -v calls="$calls" '
		FNR == 1 { before = ""; in_comment = 0 }
		{
			line = $0
			# words in comments and texts are no calls
			gsub(/"([^"\\]|\\.)*"/, "\"\"", line)
			gsub(/\/\*[^*]*\*\//, "", line)
			sub(/\/\/.*/, "", line)
			if (line ~ /^[ \t]*(\/?\*)/) { before = $0; next }
			if (match(line, "(^|[^A-Za-z0-9_.>])(" calls ")[ ]*\\(") && $0 !~ /lint:/ && before !~ /lint:/) {
				name = substr(line, RSTART, RLENGTH)
				gsub(/[^A-Za-z0-9_]/, "", name)
				print FILENAME ":" FNR ": " name " is banned here; if it must be, say why: /* lint: " name " ... */"
			}
			before = $0
		}' "$@" >>"$findings"
}

check_banned() {
	local secret=() libraries=() product=()
	for file in "${sources[@]}"; do
		case $file in
		tests/*) ;;
		*) product+=("$file") ;;
		esac
		case $file in
		enclave/* | keymgr/*) secret+=("$file") ;;
		esac
		case $file in
		# base/die.c and base/log.c are the daemons'
		lib/base/die.c | lib/base/log.c) ;;
		lib/* | policy/*) libraries+=("$file") ;;
		esac
	done
	banned 'memcmp|malloc|realloc|getenv|secure_getenv|rand|random|srand|drand48' "${secret[@]}"
	banned 'strcpy|strcat|sprintf|vsprintf|gets|strtok|tmpnam|mktemp|alloca|system|popen|atoi|atol|setjmp' "${product[@]}"
	# a library never ends the process, nor writes to the program's output
	banned 'exit|_exit|abort|printf|puts|perror' "${libraries[@]}"
	grep -nE '\berrno\b' "${sources[@]}" | grep -vE '^(lib/base/|tests/)|#include|lint:' |
		sed -E 's|^([^:]*:[0-9]+):.*|\1: errno is read in lib/base/os.c only (STYLE.md rule 15); if it must be, say why: /* lint: errno ... */|' >>"$findings"
}

# ---- sizes ----
check_sizes() {
	for file in "${sources[@]}" "${headers[@]}"; do
		[ "$(wc -l <"$file")" -le 600 ] || found "$file:1: $(wc -l <"$file") lines, at most 600"
	done
	awk 'FNR == 1 { start = 0 } /^\{/ { start = FNR } /^\}/ {
		if (start && FNR - start > 80) print FILENAME ":" start ": a function of " FNR - start " lines, at most 80"
		start = 0 }' "${sources[@]}" >>"$findings"
	grep -nE '\b(TODO|FIXME|XXX|HACK)\b' "${sources[@]}" "${headers[@]}" "${scripts[@]}" | grep -v '^tests/lint\.sh' |
		sed -E 's|^([^:]*:[0-9]+):.*|\1: unfinished (TODO and the like)|' >>"$findings"
}

# ---- every header compiles alone ----
check_headers() {
	for header in "${headers[@]}"; do
		printf '#include "%s"\n' "$header" |
			gcc -std=gnu17 -D_GNU_SOURCE -I. -iquote lib/base -Wall -Wextra -fsyntax-only -xc - 2>/dev/null ||
			found "$header:1: does not compile alone"
	done
}

check_tools() {
	# Suppressed: what needs all of the system's headers; what -Wall and the sentinel attribute tell better; syntax that its parser does
	# not know (__VA_OPT__, attributes of members: gcc does); the difference of two symbols around an .incbin.
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr -j2 -I. -Ilib/base -D_GNU_SOURCE -DSECPOOL_VERSION='""' \
		--suppress=missingIncludeSystem --suppress=unknownMacro --suppress=normalCheckLevelMaxBranches \
		--suppress=preprocessorErrorDirective --suppress=varFuncNullUB --suppress=syntaxError \
		--suppress=comparePointers:policy/default.c --template='{file}:{line}: cppcheck: {id}: {message}' \
		"${sources[@]}" 2>>"$findings"
	if command -v shellcheck >/dev/null; then
		shellcheck -f gcc "${scripts[@]}" | grep -vE ' note: ' >>"$findings"
	fi
}

for step in format layers doors banned sizes headers tools; do
	"check_$step"
done
sort -u "$findings"
count=$(sort -u "$findings" | wc -l)
echo "lint: $count findings in ${#sources[@]} sources, ${#headers[@]} headers, ${#scripts[@]} scripts"
[ "$count" = 0 ]
