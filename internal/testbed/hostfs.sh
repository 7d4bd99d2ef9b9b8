# Gives a host its own view of the file system. Runs in the host's namespaces;
# $1 is its directory in the bed, $2 its name; the rest are directories of the
# machine to keep where they are.
set -eu
dir=$1 name=$2
shift 2

# Nothing mounted here may reach the machine, nor the other way round.
mount --make-rprivate /

# The copies of these mounts would keep the machine's containers and network
# namespaces in use after it let go of them.
mounts=$(while read -r _ _ _ _ where _; do echo "$where"; done </proc/self/mountinfo)
for where in $mounts; do
	case $where in
	/run/* | /var/lib/docker | /var/lib/docker/* | /var/lib/containerd/* | /var/lib/shoal/*)
		umount -l "$where" 2>/dev/null || : # gone with the one above it
		;;
	esac
done

# /sys shows the network namespace it was mounted from; its cgroups are kept.
mount -t sysfs sysfs "$dir/sys"
mount --rbind /sys/fs/cgroup "$dir/sys/fs/cgroup"
mount --rbind "$dir/sys" /sys

# All of /var/lib is the host's own, as /var/lib/shoal could not be hidden
# alone without making it on the machine.
for keep; do
	case $keep in
	/var/lib/*)
		mkdir -p "$dir$keep"
		mount --bind "$keep" "$dir$keep"
		;;
	esac
done
mkdir -p /etc/docker # the engine's, and made by it otherwise
for private in run etc/docker var/lib; do
	mount --rbind "$dir/$private" "/$private"
done
for private in etc/hosts etc/hostname etc/resolv.conf; do
	mount --bind "$dir/$private" "$(readlink -f "/$private")"
done

mount -t proc proc /proc
echo "$name" >/proc/sys/kernel/hostname
