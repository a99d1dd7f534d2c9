# SPDX-License-Identifier: Apache-2.0
# Lines of secpool-bench --json: field(NAME) of the line is what stands there, "" when there is none. For plot.sh and report.sh: awk -f results.awk -f ...
function field(name,    rest) {
	if (!match($0, "\"" name "\":"))
		return ""
	rest = substr($0, RSTART + RLENGTH)
	if (substr(rest, 1, 1) == "\"") {
		match(rest, /^"([^"\\]|\\.)*"/)
		return substr(rest, 2, RLENGTH - 2)
	}
	match(rest, /^[^,}]*/)
	return substr(rest, 1, RLENGTH)
}
