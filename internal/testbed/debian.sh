# Makes DIR a root file system of Debian's packages and all that they depend on:
# unpacked, not installed, so that the machine's own packages have no say in it.
#   debian.sh DIR PACKAGE...
set -eu
dir=$1
shift
[ -d "$dir" ] && exit 0
work=$dir.part.$$
root=$work/root
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/debs/partial" "$root"
: >"$work/status"
: >"$work/extended"

# With nothing installed, according to the status, every dependency is fetched.
fetch() {
	apt-get -qq -y -o Dir::State::status="$work/status" -o Dir::State::extended_states="$work/extended" \
		-o Dir::Cache::archives="$work/debs" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
		-o APT::Sandbox::User=root -o Debug::NoLocking=1 -o APT::Install-Recommends=0 \
		--download-only install "$@" >"$work/log" 2>&1
}
if ! fetch "$@"; then
	apt-get -qq update >"$work/log" 2>&1 || { cat "$work/log"; exit 1; } # the lists may be old, or not there
	fetch "$@" || { cat "$work/log"; exit 1; }
fi

# Packages may still name /bin and the like, which are links nowadays.
for d in bin sbin lib lib64; do
	mkdir -p "$root/usr/$d"
	ln -s "usr/$d" "$root/$d"
done
for deb in "$work"/debs/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$root"
done

# What no server needs to run. The just-in-time compiler of PostgreSQL alone is as
# large as all the rest.
rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale "$root"/usr/share/perl* \
	"$root"/usr/share/info "$root"/usr/share/lintian "$root"/usr/lib/llvm-* "$root"/usr/lib/*/libLLVM* \
	"$root"/usr/lib/*/perl* "$root"/usr/lib/systemd "$root"/usr/lib/postgresql/*/lib/bitcode \
	"$root"/usr/lib/postgresql/*/lib/llvmjit*

# What the packages' scripts would have done.
mkdir -p "$root/run" "$root/tmp" "$root/dev" "$root/proc" "$root/sys" "$root/etc" "$root/root" "$root/var/log/nginx" "$root/usr/local/bin"
chmod 1777 "$root/tmp"
mknod -m 666 "$root/dev/null" c 1 3
cat >"$root/etc/passwd" <<EOF
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/sh
redis:x:100:100:redis:/var/lib/redis:/bin/sh
postgres:x:101:101:postgres:/var/lib/postgresql:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/sh
EOF
cat >"$root/etc/group" <<EOF
root:x:0:
www-data:x:33:
redis:x:100:
postgres:x:101:
nogroup:x:65534:
EOF
chroot "$root" /bin/busybox --install -s
for program in "$root"/usr/lib/postgresql/*/bin/*; do
	ln -sf "${program#"$root"}" "$root/usr/local/bin/${program##*/}"
done
# A database is made where there is none yet. Its users need the password.
cat >"$root/usr/local/bin/postgres-entrypoint" <<'EOF'
#!/bin/sh
set -eu
[ "$1" = postgres ] || exec "$@"
as="setpriv --reuid=postgres --regid=postgres --clear-groups"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	mkdir -p "$PGDATA" && chown postgres:postgres "$PGDATA" && chmod 700 "$PGDATA"
	cat "$POSTGRES_PASSWORD_FILE" >/tmp/password && chown postgres /tmp/password
	$as initdb --locale=C --encoding=UTF8 --auth=scram-sha-256 --pwfile=/tmp/password --no-sync >/dev/null
	rm /tmp/password
	echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
fi
mkdir -p /var/run/postgresql && chown postgres /var/run/postgresql
exec $as "$@" -c "listen_addresses=*" -c "unix_socket_directories=/var/run/postgresql"
EOF
chmod 755 "$root/usr/local/bin/postgres-entrypoint"
# Servers in containers log to where their engine reads.
ln -sf /dev/stdout "$root/var/log/nginx/access.log"
ln -sf /dev/stderr "$root/var/log/nginx/error.log"
rm -f "$root/etc/nginx/sites-enabled/default"

# Somebody else may have made it meanwhile.
mv -T "$root" "$dir" 2>/dev/null || [ -d "$dir" ]
