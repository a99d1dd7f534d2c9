#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The program in README.md compiles without a warning against the built library, and runs on the embedded default as it is described there.
set -eu
case ${SAN:-} in
tsan)
	echo "the default policy's window is not free under TSan"
	exit 77
	;;
asan) flags='-fsanitize=address,undefined' ;;
*) flags= ;;
esac
work=$(mktemp -d "${TMPDIR:-/tmp}/readme.XXXXXX")
trap '"$B/bin/secpool" down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
# shellcheck disable=SC2016 # the marks of code in Markdown
sed -n '/^```c$/,/^```$/p' README.md | sed '/^```/d' >"$work/example.c"
grep -q secpool_open "$work/example.c"
# shellcheck disable=SC2086 # flags
cc -Wall -Wextra -Werror $flags -Ilib -Ilib/base "$work/example.c" -L"$B/lib" -lsecpool -Wl,-rpath,"$B/lib" -o "$work/example"
"$B/bin/secpool" up --devices 3 --device-bytes 256M
"$work/example" | tee "$work/output"
grep -qx "page at $((100 << 20))" "$work/output"
"$B/bin/secpool" down
