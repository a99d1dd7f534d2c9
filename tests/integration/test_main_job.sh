#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The main job in small, twice: real files in a mirrored region, a device pulled half-way, all files right, receipt valid,
# nothing left running or lying about. timeout: 240
set -eu
work=$(mktemp -d "${TMPDIR:-/tmp}/main-job.XXXXXX")
trap 'rm -rf "$work"' EXIT

fail() { echo "failed: $1"; exit 1; }

# files of many sizes, also one byte, not whole pages, and larger than the local memory
mkdir "$work/files"
head -c 1 /dev/urandom >"$work/files/one"
for i in $(seq 200); do head -c $((i * 997)) /dev/urandom >"$work/files/$i"; done
head -c 20000001 /dev/urandom >"$work/files/large"
: >"$work/files/empty"
ln -s /etc/passwd "$work/files/link"
echo 'version: 1' >"$work/policy.yaml"
# the default window is not free under TSan
[ "${SAN:-}" != tsan ] || printf 'window:\n  base: "0x004000000000"\n  bytes: 128G\n' >>"$work/policy.yaml"
cat >>"$work/policy.yaml" <<'TXT'
tenants:
  - name: jobs
    users: ["%self"]
    quota: {bytes: 4G, regions: 8, sessions: 4, local_bytes: 256M}
    protection: [xts-gmac]
    redundancy: [none, "mirror:2"]
    on_loss: [sigbus, failover]
devices:
  enrol: first-use
  max_age_seconds: 3600
  firmware: [secpool-emulated-1.0]
TXT

export DEMO_FOLDER=$work/files DEMO_BYTES=1G DEMO_DEVICE_BYTES=64M DEMO_LOCAL=8M DEMO_REDIS_BYTES=16M DEMO_POLICY=$work/policy.yaml DEMO_TENANT=jobs
for round in 1 2; do
	tests/demo.sh >"$work/output" 2>&1 || { cat "$work/output"; fail "the demo, round $round"; }
	cat "$work/output"
	grep -q 'wrong files  *0$' "$work/output" || fail "no line says that no file is wrong"
	grep -q 'files checked  *202 ' "$work/output" || fail "202 files should have been checked"
	grep -q 'device lost  *dev1' "$work/output" || fail "the loss of dev1 was not reported"
	grep -q 'resident limit  *8388608 ' "$work/output" || fail "the resident limit is not the one asked for"
	# the sanitizers' builds have no preload library
	[ -n "${SAN:-}" ] || grep -q 'redis keys checked 16000, wrong 0$' "$work/output" || fail "redis' keys"
	[ ! -e "$SECPOOL_RUNTIME_DIR" ] || fail "the runtime folder was left: $(ls -A "$SECPOOL_RUNTIME_DIR")"
	# the runner says so too, but here it is a failure; the pattern comes from a file, so that grep does not find itself
	echo "$SECPOOL_RUNTIME_DIR" >"$work/pattern"
	left=$(grep -laF -f "$work/pattern" /proc/[0-9]*/cmdline 2>/dev/null || true)
	[ -z "$left" ] || fail "processes were left: $left"
done

# a command that fails half-way fails the job, and still nothing is left
if DEMO_FOLDER=$work/nothing-here tests/demo.sh >"$work/output" 2>&1; then
	fail "the demo found files where there are none"
fi
[ ! -e "$SECPOOL_RUNTIME_DIR" ] || fail "the runtime folder was left after a failure"
