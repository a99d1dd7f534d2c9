#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tests/bench/plot.sh RESULTS OUTDIR: pictures (SVG, by gnuplot) of a run of the benches. A picture for which RESULTS has no values is left out; bars that
# are missing in it too. The lines in the bars go from the least to the most of the rounds.
set -eu

[ $# = 2 ] || { echo "usage: tests/bench/plot.sh RESULTS OUTDIR" >&2; exit 2; }
results=$1 out=$2 here=$(dirname "$0")
[ -r "$results" ] || { echo "plot: $results can't be read" >&2; exit 1; }
command -v gnuplot >/dev/null || { echo "plot: gnuplot is missing, run 'make deps'" >&2; exit 1; }
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# picture NAME TITLE UNIT BENCH: bars from lines "group|bar|metric|part of the config" of standard input, in their order
picture() {
	cat >"$work/wanted"
	awk -f "$here/results.awk" -f /dev/fd/3 bench="$4" "$work/wanted" "$results" >"$work/data" 3<<-'AWK'
		FNR == 1 { file++ }
		file == 1 {
			if (split($0, part, "|") < 4)
				next
			if (!(part[1] in seen)) { seen[part[1]] = 1; groups[++group_count] = part[1] }
			if (!(part[2] in had)) { had[part[2]] = 1; bars[++bar_count] = part[2] }
			metric[++count] = part[3]; config[count] = part[4]; at[count] = part[1] SUBSEP part[2]
			next
		}
		field("bench") == bench {
			for (i = 1; i <= count; i++)
				if (field("metric") == metric[i] && index(field("config"), config[i])) {
					value = field("value"); least = field("least"); most = field("most")
					cell[at[i]] = value " " (least == "" ? value : least) " " (most == "" ? value : most)
					found++
				}
		}
		END {
			if (!found)
				exit
			printf "group"
			for (b = 1; b <= bar_count; b++)
				printf " \"%s\" least most", bars[b]
			printf "\n"
			for (g = 1; g <= group_count; g++) {
				printf "\"%s\"", groups[g]
				for (b = 1; b <= bar_count; b++)
					printf " %s", (groups[g] SUBSEP bars[b]) in cell ? cell[groups[g] SUBSEP bars[b]] : "NaN NaN NaN"
				printf "\n"
			}
		}
	AWK
	[ -s "$work/data" ] || { echo "plot: $1: no values" >&2; return 0; }
	bars=$(head -n 1 "$work/data" | grep -o ' least' | wc -l)
	gnuplot <<-PLOT
		set terminal svg size 900,480 noenhanced font "sans,12" background "white"
		set output "$out/$1.svg"
		set title "$2"
		set ylabel "$3"
		set yrange [0:*]
		set grid ytics
		set xtics rotate by -20
		set style data histograms
		set style histogram errorbars gap 2 linewidth 1
		set style fill solid 0.7 border -1
		set key top right outside
		set key autotitle columnheader
		plot for [i=0:$bars-1] "$work/data" using (column(3*i+2)):(column(3*i+3)):(column(3*i+4)):xtic(1) title columnheader(3*i+2)
	PLOT
	echo "plot: $out/$1.svg"
}

# sides NAME...: a line for each side of a group: sides GROUP METRIC-PREFIX CONFIG SIDE...
sides() {
	local group=$1 prefix=$2 config=$3
	shift 3
	for side; do echo "$group|$side|${prefix}_$side|$config"; done
}

{
	for way in write read; do sides "$way" "$way" "128 MiB local" thread inline inline_mirror zram; done
} | picture scan "Sequential, 512 MiB with 128 MiB local: more is better" "GB/s" scan

{
	sides "reads, idle" access "random reads, 25 % local, 4 KiB pages, idle" thread inline bare_thread bare_inline zram
	sides "writes, idle" access "random writes, 25 % local, 4 KiB pages, idle" thread inline bare_thread bare_inline zram
	sides "reads, busy" access "every CPU busy" thread inline bare_thread bare_inline zram
} | picture random "A random access, 25 % local (bare: each is a miss): less is better" "us" random

for pattern in forward backward stride_2 stride_8 stride_32 four_streams random; do
	echo "$pattern|inline|$pattern|256 MiB"
done | picture stride "A page of a pattern, 64 of 256 MiB local: less is better" "us" stride

for bytes in 4096 16384 65536 524288 2097152; do
	for way in read write; do echo "$bytes|$way|$way|page_bytes=$bytes "; done
done | picture pagesize "Sequential, by size of the pool's pages: more is better" "GB/s" pagesize

for mib in 64 256 1024; do echo "$mib MiB|a miss|random_miss|region of $mib MiB"; done |
	picture size "A random miss, by size of the region: flat is good" "us" pagesize

for level in 100 75 50 25; do sides "$level % local" all "SQLite, $level % local" memory zram thread inline; done |
	picture program "SQLite, all queries: less is better" "ms" program

for size in 64 1024 4096; do
	for way in read write; do
		for mode in thread inline; do
			echo "$way, $size KiB|$mode|${way}_vs_cipher|$mode mode, calls of $size KiB"
		done
	done
done | picture readwrite "secpool_read and secpool_write as a part of the cipher's own speed: more is better" "x" readwrite

for side in heap_thread heap_inline jemalloc jemalloc_uncached glibc; do echo "free and malloc|$side|$side|resident"; done |
	picture heap "One free and one malloc, resident: less is better" "ns" heap

for metric in write read; do
	for kind in none mirror:2 mirror:3 ec:2+1 ec:4+2 ec:5+2; do echo "$metric|$kind|${metric}_$kind|128 MiB"; done
done | picture redundancy "Sequential, by redundancy, 25 % local: more is better" "GB/s" redundancy

for metric in pull_to_first_right_byte stall_p50 stall_p99 longest_stall pull_to_program_told; do
	for kind in mirror:2 ec:4+2 'none, sigbus'; do echo "$metric|$kind|$metric|$kind, random"; done
done | picture failover "A device pulled during random reads: less is better" "us" failover

# throughput over time through a pull, a line for each kind
for kind in mirror:2 ec:4+2; do
	awk -f "$here/results.awk" -f /dev/fd/3 kind="$kind" "$results" >"$work/$kind" 3<<-'AWK'
		field("metric") == "timeline" && index(field("config"), kind ",") == 1 {
			config = field("config")
			sub(/.*t=/, "", config)
			print config, field("value")
		}
	AWK
done
if [ -s "$work/mirror:2" ] && [ -s "$work/ec:4+2" ]; then
	gnuplot <<-PLOT
		set terminal svg size 900,480 noenhanced font "sans,12" background "white"
		set output "$out/rebuild.svg"
		set title "Accesses through a pull (at 2 s) and the rebuild, 256 MiB, 25 % local"
		set xlabel "s"
		set ylabel "accesses/s"
		set yrange [0:*]
		set grid
		plot "$work/mirror:2" with lines title "mirror:2", "$work/ec:4+2" with lines title "ec:4+2"
	PLOT
	echo "plot: $out/rebuild.svg"
fi

for metric in pagecipher_seal pagecipher_open openssl_xts gmac memcpy; do
	for bytes in 4096 65536 2097152; do echo "$bytes|$metric|$metric|page_bytes=$bytes"; done
done | picture cipher "The page cipher, one core, by page size: more is better" "GB/s" cipher
