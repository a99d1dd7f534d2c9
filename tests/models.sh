#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Checks the models of docs/models with Spin.                                                   (make models)
# A line "check: NAME [-DX ...] [ltl=P]" in a model's head is a search that must be complete and find nothing (assertions and invalid end states; or the property P, under weak fairness);
# "bug: BUG_X [-DX ...] [ltl=P]" is one with -DBUG_X that must find an error: the property is able to fail. A line of output for each; MODELS="protocol pages" runs only these.
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
SECONDS_MOST=${SECONDS_MOST:-60}
DEPTH=${DEPTH:-2000000}
failed=0 passed=0

for tool in spin gcc; do
	command -v "$tool" >/dev/null || { echo "models: $tool is missing: make deps" >&2; exit 1; }
done

number() { sed -n "s/$1/\\1/p" "$out/log" | head -n 1; }

# run KIND NAME [-DX ...] [ltl=P]: one search; says what came of it
run() {
	local kind=$1 name=$2 property='' defines=() model=${file##*/} result seconds arguments=("-m$DEPTH") flags=(-O2 -w -DCOLLAPSE -DNFAIR=4 -DMEMLIM=4096)
	shift 2
	[ "$kind" = bug ] && defines+=("-D$name")
	for word in "$@"; do
		case $word in
		ltl=*) property=${word#ltl=} ;;
		*) defines+=("$word") ;;
		esac
	done
	model=${model%.pml}
	out=$B/models/$model-$kind-$name${property:+-$property}
	rm -rf "$out"
	mkdir -p "$out"
	if [ -n "$property" ]; then
		arguments+=(-a -f -N "$property")
	else
		flags+=(-DSAFETY -DNOCLAIM)
	fi
	(
		cd "$out" && spin -a "${defines[@]}" "$top/$file" && gcc "${flags[@]}" -o pan pan.c && timeout "$SECONDS_MOST" ./pan "${arguments[@]}"
	) >"$out/log" 2>&1
	errors=$(number '.*errors: \([0-9]*\)$')
	seconds=$(number 'pan: elapsed time \([0-9.e+-]*\) seconds')
	if [ -z "$errors" ]; then
		result='NOT RUN'
	elif [ "$kind" = bug ]; then
		# what it finds must be a violation, not an end of memory or depth
		if [ "$errors" -gt 0 ] && grep -qE 'pan:1: (assertion violated|acceptance cycle|invalid end state|non-progress cycle)' "$out/log"; then
			result='found, as it must be'
		else
			result='NOT FOUND'
		fi
	elif [ "$errors" -gt 0 ]; then
		result="ERROR: $(sed -n 's/^pan:1: //p' "$out/log" | head -n 1)"
	elif grep -qE 'Search not completed|max search depth too small|out of memory|reached -DMEMLIM' "$out/log"; then
		result='NOT COMPLETE'
	else
		result='holds'
	fi
	printf '%-9s %-5s %-20s %-9s %10s states  depth %6s  %7s s  %s\n' "$model" "$kind" "$name" "${property:-safety}" \
		"$(number ' *\([0-9.e+]*\) states, stored.*')" "$(number '.*depth reached \([0-9]*\),.*')" "$seconds" "$result"
	case $result in
	holds | found*) passed=$((passed + 1)) ;;
	*)
		failed=$((failed + 1))
		echo "          see $out/log; the way there: cd $out && ./pan -r" # and spin -t
		;;
	esac
}

top=$PWD
for file in docs/models/*.pml; do
	name=${file##*/}
	[ -z "${MODELS:-}" ] || [[ " $MODELS " == *" ${name%.pml} "* ]] || continue
	while read -r kind rest; do
		# shellcheck disable=SC2086 # words
		run "${kind%:}" $rest
	done < <(sed -n 's/^ \* \(check: .*\|bug: .*\)$/\1/p' "$file")
done
echo "models: $passed as they must be, $failed not"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
