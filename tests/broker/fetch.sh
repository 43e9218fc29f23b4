#!/bin/sh
# Copies the test broker's jars (pom.xml) to <repo>/.cache/kafka/libs; does nothing when they are there already.
# They are there when the folder holds the jars of jars.sha256, unchanged, and no other. It is filled under another name
# and renamed when whole, so neither a broken download nor one that still runs is ever taken for the jars.
# `fetch.sh list` writes jars.sha256 anew, after a change of pom.xml; look at its diff.
set -eu
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache/kafka
list=$here/jars.sha256
libs=$cache/libs
part=$cache/libs.part

fail() {
    echo "tests/broker/fetch.sh: $1" >&2
    exit 1
}

command -v java >/dev/null || fail "java is missing: install Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless)"

# The list, as it would be of a folder.
list_of() {
    (cd "$1" 2>/dev/null && sha256sum -- *.jar 2>/dev/null) || true
}

up_to_date() {
    [ "$(list_of "$libs")" = "$(cat "$list")" ]
}

[ "${1:-}" != list ] && up_to_date && exit 0
command -v mvn >/dev/null || fail "mvn is missing: install Maven 3.6.3 or newer (Debian: apt-get install maven)"

# Two fetches in one checkout wait for each other; the second then finds the first one's jars.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ "${1:-}" != list ] && up_to_date && exit 0

rm -rf "$part"
mvn -B -q -C -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$part" 9>&- ||
    fail "mvn could not copy the jars (its reason stands above): is Maven Central reachable? Then run this again"
if [ "${1:-}" = list ]; then
    list_of "$part" >"$list"
fi
wrong=$(list_of "$part" | cat - "$list" | sort | uniq -u | sed 's/^[0-9a-f]*  //' | sort -u | tr '\n' ' ')
[ -z "$wrong" ] ||
    fail "not as jars.sha256 states, in $part or in Maven's own repository, and not used: $wrong"
rm -rf "$libs"
mv "$part" "$libs"
