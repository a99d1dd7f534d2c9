#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Programs of Debian as they are, by `secpool run` on mirror:2, each with about four times the local memory (4M): what they print is what they print without. timeout: 600
set -eu
[ -z "${SAN:-}" ] || { echo "the sanitizers bring a malloc of their own"; exit 77; }
S=$B/bin/secpool
work=$(mktemp -d "${TMPDIR:-/tmp}/programs.XXXXXX")
trap '"$S" down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
fail() { echo "failed: $1"; exit 1; }
"$S" up --devices 3 --device-bytes 256M >/dev/null
run() { timeout 100 "$S" run --local-bytes 4M --redundancy mirror:2 -- "$@"; }

# same NAME COMMAND...: its output and status with and without; its input is $work/input.
same() {
	local name=$1 plain=0 pooled=0
	shift
	"$@" <"$work/input" >"$work/plain" 2>&1 || plain=$?
	run "$@" <"$work/input" >"$work/pooled" 2>&1 || pooled=$?
	cmp "$work/plain" "$work/pooled" || { head -c 2000 "$work/pooled"; fail "$name: other output"; }
	[ "$plain" = "$pooled" ] || fail "$name: status $pooled, not $plain"
	echo "$name: as without, $(wc -c <"$work/pooled") bytes of output, status $pooled"
}

: >"$work/input"
cat >"$work/queries" <<'TXT'
create table t(a integer primary key, b text, c real);
with recursive n(x) as (select 1 union all select x + 1 from n where x < 40000)
insert into t select x, hex(x * 7919) || '-' || printf('%0120d', x), x / 7.0 from n;
create index i on t(b);
select count(*), sum(length(b)), max(b), round(avg(c), 6) from t;
select a from t where b like '3%9' order by b desc limit 5;
select substr(b, 1, 1) as first, count(*), sum(a) from t group by first order by 2 desc, 1;
update t set b = b || 'x' where a % 3 = 0;
delete from t where a % 5 = 0;
select count(*), sum(length(b)), min(b) from t;
select count(*) from t as x join t as y on x.a = y.a + 1 where x.b > y.b;
pragma integrity_check;
TXT
same sqlite3 /usr/bin/sqlite3 :memory: ".read $work/queries"

# memory of small objects comes from malloc, not from python's own mappings
cat >"$work/dictionary.py" <<'TXT'
d = {i: "%d" % (i * 7919) * 6 for i in range(80000)}
for i in range(0, 80000, 3):
    del d[i]
for i in range(0, 80000, 6):
    d[i] = "again %d" % i
print(len(d), sum(len(v) for v in d.values()), all(d[i] == "%d" % (i * 7919) * 6 for i in range(1, 80000, 3)))
import os, subprocess
if "SECPOOL_RUN_LOCAL_BYTES" in os.environ:  # four times the local memory lies in the window
    spans = [[int(a, 16) for a in line.split()[0].split("-")] for line in open("/proc/self/maps")]
    assert sum(b - a for a, b in spans if 0x110000000000 <= a < 0x150000000000) >= 16 << 20
print(subprocess.run(["/bin/sh", "-c", "echo from a child; exit 3"], capture_output=True))
raise SystemExit(5)
TXT
PYTHONMALLOC=malloc same python3 /usr/bin/python3 "$work/dictionary.py"

seq 200000 | awk '{ printf "%d %d of a line\n", ($1 * 7919) % 1000003, $1 }' >"$work/input"
same sort sort -n -S 16M --parallel=2 -T "$work"

: >"$work/input"
same gcc gcc -std=gnu17 -D_GNU_SOURCE -I. -iquote lib/base -O2 -S lib/erasure.c -o -
same gcc-with-an-error gcc -x c -fsyntax-only "$work/queries"

"$S" down >/dev/null
