#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tests/bench/report.sh RESULTS OUTDIR: keeps a run of the benches. Makes OUTDIR/<date> with results.jsonl, machine.txt (what it was measured on and how),
# the pictures and table.md; a second one of a day gets a number. Run it on the machine that measured, with the tree that was measured.
set -eu

[ $# = 2 ] || { echo "usage: tests/bench/report.sh RESULTS OUTDIR" >&2; exit 2; }
results=$1 here=$(cd "$(dirname "$0")" && pwd)
[ -s "$results" ] || { echo "report: $results is empty or can't be read" >&2; exit 1; }

day=$(date -u +%F)
folder=$2/$day
for ((i = 2; ; i++)); do
	[ -e "$folder" ] || break
	folder=$2/$day-$i
done
mkdir -p "$folder"
cp "$results" "$folder/results.jsonl"

# what stands after the colon in a line of /proc or of a tool's listing
value_of() { sed -n "s/^$1[[:space:]]*:[[:space:]]*//p" | head -n 1; }

machine() {
	echo "measured:  $(date -u -r "$results" +'%F %H:%M UTC')"
	echo "cpu:       $(value_of 'model name' </proc/cpuinfo), $(nproc) CPUs, hypervisor: $(lscpu | value_of 'Hypervisor vendor')"
	echo "vectors:   $(grep -m 1 '^flags' /proc/cpuinfo | grep -owE 'aes|vaes|vpclmulqdq|avx2|avx512f|avx512bw' | tr '\n' ' ')"
	echo "memory:    $(awk '$1 == "MemTotal:" { printf "%.1f GiB", $2 / 1048576 }' /proc/meminfo)"
	echo "kernel:    $(uname -srvm)"
	echo "system:    $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)"
	echo "compiler:  $(gcc --version | head -n 1)"
	echo "openssl:   $(openssl version 2>/dev/null || echo 'no command')"
	echo "sqlite:    $(dpkg-query -W -f '${Version}' libsqlite3-0 2>/dev/null || echo unknown)"
	echo "zram:      $(cat /sys/block/zram0/comp_algorithm 2>/dev/null || echo none), vm.page-cluster=$(cat /proc/sys/vm/page-cluster)"
	echo "pages:     transparent_hugepage $(cat /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null || echo none)"
	echo "devices:   emulated, on $(cat "$(dirname "$results")/devices.txt" 2>/dev/null || echo unknown)"
	echo "commit:    $(git -C "$here" describe --always --dirty --abbrev=12)"
	echo "command:   make bench${BENCHES:+ BENCHES=\"$BENCHES\"}; tests/bench/report.sh $results $2"
}

table() {
	echo "# A run of $1"
	echo
	echo "Made by tests/bench/report.sh from results.jsonl; machine.txt says where. Medians; the range is from the least to the most of the rounds."
	awk -f "$here/results.awk" -f /dev/fd/3 "$results" 3<<-'AWK'
		{
			bench = field("bench"); metric = field("metric"); config = field("config")
			if (bench != last) {
				printf "\n## %s\n\n| what | value | unit | range | of |\n| --- | ---: | --- | --- | --- |\n", bench
				last = bench
			}
			range = field("most") == "" ? "" : field("least") " to " field("most")
			gsub(/\|/, "\\|", config)
			printf "| %s | %s | %s | %s | %s |\n", metric, field("value"), field("unit"), range, config
		}
	AWK
}

machine "$1" "$2" >"$folder/machine.txt"
table "$(basename "$folder")" >"$folder/table.md"
"$here/plot.sh" "$results" "$folder" >/dev/null
echo "$folder"
