#!/bin/sh
# Installs what building, testing and the demonstration need and this machine
# lacks. Does nothing when nothing is missing. For Debian and its relatives;
# elsewhere it says what to install. Arguments name further programs, each in a
# package of its own name.
set -eu

# Each line: a file that must be found, then the packages that may hold it, the
# first one available being taken. Test hosts start their own Docker engines,
# so the machine's own one need not run.
wanted='dockerd docker.io
docker docker-cli docker.io
docker-registry docker-registry
nft nftables
ip iproute2
iptables iptables
conntrack conntrack
/usr/bin/busybox busybox-static
ps procps
curl curl
/usr/lib/python3/dist-packages/docker/__init__.py python3-docker'

for extra in "$@"; do
	wanted="$wanted
$extra $extra"
done

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing() {
	echo "$wanted" | while read -r file packages; do
		command -v "$file" >/dev/null 2>&1 || [ -f "$file" ] || echo "$packages"
	done
}

if ! command -v go >/dev/null 2>&1; then
	echo "setup: Go is not installed; see https://go.dev/dl (go.mod names the version)" >&2
	exit 1
fi

need=$(missing)
[ -n "$need" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "setup: please install these (Debian's names):" >&2
	echo "$need" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "setup: run as root, or install these yourself:" >&2
	echo "$need" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
install=$(echo "$need" | while read -r packages; do
	for package in $packages; do
		# Named but not to be had is "(none)".
		if apt-cache policy "$package" | grep -q 'Candidate: [^(]'; then
			echo "$package"
			break
		fi
	done
done | sort -u | tr '\n' ' ')
echo "setup: installing $install"
# shellcheck disable=SC2086 # a list of words
apt-get install -qq -y --no-install-recommends $install >/dev/null

need=$(missing)
if [ -n "$need" ]; then
	echo "setup: still missing after the installation:" >&2
	echo "$need" >&2
	exit 1
fi
