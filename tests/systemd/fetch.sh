#!/bin/sh
# Where the machine has no systemd-analyze: brings Debian's to <repo>/.cache/systemd, without root and without installing
# anything. apt checks what it downloads: a checksum in an index that the distribution has signed. Does nothing where it is
# there already. `tests/systemd/__init__.py` says which of the two is used.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache/systemd

command -v systemd-analyze >/dev/null && exit 0
[ -x "$cache/systemd-analyze" ] && exit 0

fail() {
    echo "tests/systemd/fetch.sh: $1; or install it: apt-get install systemd" >&2
    exit 1
}
command -v apt-get >/dev/null || fail "systemd-analyze is missing, and so is apt-get to fetch it"

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ -x "$cache/systemd-analyze" ] && exit 0
rm -rf "$cache/root" "$cache/debs"
mkdir "$cache/debs"
cd "$cache/debs"
for package in systemd libsystemd-shared libapparmor1 libfdisk1 libip4tc2 libkmod2 libseccomp2; do
    apt-get -qq download "$package" 9>&- || fail "$package could not be downloaded (its reason stands above)"
done
for package in *.deb; do
    dpkg -x "$package" "$cache/root"
done
cat >"$cache/systemd-analyze.part" <<'END'
#!/bin/sh
root=$(cd "$(dirname "$0")" && pwd)/root
LD_LIBRARY_PATH=$(echo "$root"/usr/lib/*/systemd "$root"/lib/*/ "$root"/usr/lib/*/ "$root"/usr/lib/systemd "$root"/lib/systemd | tr ' ' ':')
# The targets that a unit stands on; they come after the folders of the units named.
SYSTEMD_UNIT_PATH=$root/usr/lib/systemd/system:$root/lib/systemd/system:
export LD_LIBRARY_PATH SYSTEMD_UNIT_PATH
exec "$root/usr/bin/systemd-analyze" "$@"
END
chmod +x "$cache/systemd-analyze.part"
mv "$cache/systemd-analyze.part" "$cache/systemd-analyze"
