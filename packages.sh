#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the packages of packages.txt that are not there yet. Needs root only when something is missing.
set -eu
cd "$(dirname "$0")"
wanted=$(sed 's/#.*//' packages.txt | tr -s ' \t\n' ' ')
missing=
for package in $wanted; do
	dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || { echo "all packages are installed"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "these packages are missing, run 'make deps' as root:$missing" >&2; exit 1; }
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086 # a list of names
apt-get install -y -q --no-install-recommends $missing
