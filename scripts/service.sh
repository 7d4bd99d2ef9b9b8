#!/bin/sh
# The part of `make install` and `make uninstall` that concerns the running
# system. With DESTDIR set there is none, and everything is a no-op.
#
#   start   load the unit and start the daemon, where systemd runs
#   check   refuse while this node is in a swarm
#   stop    stop the daemon and forget the unit
#   purge   remove the node's data
set -eu

data=/var/lib/shoal

[ -z "${DESTDIR:-}" ] || exit 0

have_systemd() { [ -d /run/systemd/system ]; }

# in_swarm: a node that has joined a swarm holds its certificate.
in_swarm() {
	for dir in "$data/tls" "$data/raft"; do
		[ -z "$(find "$dir" -type f 2>/dev/null | head -n 1)" ] || return 0
	done
	return 1
}

# daemons lists the processes of daemons that use the data, whichever binary they
# were started from, deleted ones included. Test hosts have mounts of their own.
daemons() {
	for proc in /proc/[0-9]*; do
		[ "$(readlink "$proc/ns/mnt" 2>/dev/null)" = "$(readlink /proc/self/ns/mnt)" ] || continue
		case $(readlink "$proc/exe" 2>/dev/null) in
		*/shoal | *"/shoal (deleted)") ;;
		*) continue ;;
		esac
		args=$(tr '\0' ' ' <"$proc/cmdline" 2>/dev/null) || continue
		case $args in
		*" daemon "*"--data-dir $data "* | *" daemon "*"--data-dir=$data "*) ;;
		*" daemon "*--data-dir*) continue ;;
		*" daemon "*) ;;
		*) continue ;;
		esac
		echo "${proc#/proc/}"
	done
}

case $1 in
start)
	if have_systemd; then
		systemctl daemon-reload
		systemctl enable --quiet shoal.service
		systemctl restart shoal.service
		echo "shoal runs and starts at boot. Next: shoal swarm init"
	else
		echo "shoal is installed. There is no systemd here, so 'shoal swarm init' starts the daemon itself."
	fi
	;;
check)
	if in_swarm; then
		cat >&2 <<-EOT
			This node is still in a swarm, and its data is in $data.
			Leave the swarm first: shoal swarm leave  (on the last manager: shoal swarm leave --force)
		EOT
		exit 1
	fi
	;;
stop)
	if have_systemd; then
		systemctl disable --quiet --now shoal.service 2>/dev/null || : # it may not be installed
	fi
	for pid in $(daemons); do
		kill "$pid" 2>/dev/null || continue
		tries=0
		while [ -d "/proc/$pid" ]; do
			tries=$((tries + 1))
			if [ "$tries" -gt 300 ]; then
				echo "the daemon (process $pid) does not stop" >&2
				exit 1
			fi
			sleep 0.1
		done
	done
	;;
purge)
	rm -rf "$data"
	rm -f /run/shoal.sock /run/docker/plugins/shoal.sock /etc/docker/plugins/shoal.json
	if have_systemd; then
		systemctl daemon-reload
	fi
	;;
*)
	echo "usage: $0 start|check|stop|purge" >&2
	exit 2
	;;
esac
