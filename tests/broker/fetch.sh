#!/bin/sh
# Copies the test broker's jars (pom.xml) to <repo>/.cache/kafka/libs; does nothing when they are there already.
# They are there when libs/pom.sha256 holds pom.xml's checksum. The folder is filled under another name and renamed
# when whole, so neither a broken download nor one that still runs is ever taken for the jars.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache/kafka
libs=$cache/libs
part=$cache/libs.part

fail() {
    echo "tests/broker/fetch.sh: $1" >&2
    exit 1
}

command -v java >/dev/null || fail "java is missing: install Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless)"

wanted=$(sha256sum "$here/pom.xml" | cut -d ' ' -f 1)

up_to_date() {
    [ "$(cat "$libs/pom.sha256" 2>/dev/null)" = "$wanted" ]
}

up_to_date && exit 0
command -v mvn >/dev/null || fail "mvn is missing: install Maven 3.6.3 or newer (Debian: apt-get install maven)"

# Two fetches in one checkout wait for each other; the second then finds the first one's jars.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
up_to_date && exit 0

rm -rf "$part"
mvn -B -q -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$part" 9>&- ||
    fail "mvn could not copy the jars (its reason stands above): is Maven Central reachable? Then run this again"
echo "$wanted" >"$part/pom.sha256"
rm -rf "$libs"
mv "$part" "$libs"
