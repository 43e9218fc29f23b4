#!/bin/bash -p
# Puts a wheel of streamingcandle on a Debian-like host as a service of systemd; docs/deployment.md tells the story.
# What is there already stays as it is: a second run changes nothing, a run that was killed is finished by the next.
#
# Root runs this, so it believes nothing of where it is run: -p (no functions and no BASH_ENV of the environment), no
# program started before it is in /, no variable kept but those named below, Python with -I. From a wheel no code runs as
# root: its files are unpacked, and its program is asked as the service's user.
set -euo pipefail
set +x
umask 022
while read -r name; do
    case $name in
        PATH | HOME | TERM | *_proxy | *_PROXY | SSL_CERT_FILE | SSL_CERT_DIR) ;;
        CREDENTIALS_DIRECTORY | STREAMINGCANDLE_INSTANCE | STREAMINGCANDLE_SYSTEMCTL | STREAMINGCANDLE_SETTLE_S) export -n "${name?}" ;;
        *) unset "${name?}" 2>/dev/null || export -n "${name?}" ;;
    esac
done < <(compgen -e)
called_from=$(pwd -P)
script=${BASH_SOURCE[0]}
[[ $script == /* ]] || script=${called_from%/}/$script
cd /
export LC_ALL=C
shopt -s nullglob

usage() {
    cat <<'END'
usage: deploy-production.sh [options] WHEEL    install it, check it, switch to it, restart; back again if that fails
       deploy-production.sh --rollback         switch to the version before
       deploy-production.sh --uninstall        remove program and units; settings, state, logs and user stay
       deploy-production.sh --check [WHEEL]    is the host as a deployment leaves it? exit 1 and each difference
options:
  --dry-run         say what would be done, change nothing
  --prefix DIR      everything below DIR; systemd is told nothing, no user is needed
  --python PROGRAM  make the virtual environment with this one (default: python3), 3.11 or newer
  --wheels DIR      take what the wheel depends on from DIR, without a package index; by the same checksums
  --wait SECONDS    for readiness, of each unit (default: 300)
beside WHEEL lie requirements.txt, what it depends on with checksums, and SHA256SUMS of both, as `make wheel` leaves them
variables:
  STREAMINGCANDLE_INSTANCE   the unit is streamingcandle@INSTANCE: a number, or a timeframe like 1m
  CREDENTIALS_DIRECTORY      where doctor finds secrets (default: a copy of /etc/streamingcandle/secrets)
exit codes: 0 done, 1 refused, failed or different; the version before runs, 2 wrong usage
END
}

MARK='# Installed by streamingcandle'
KEPT_VERSIONS=2 # the one that runs and the one before
SETTLE_S=${STREAMINGCANDLE_SETTLE_S:-5}
USER_NAME=streamingcandle

action=deploy is_check=0 is_dry=0 prefix=/ python=python3 wheels='' wait_s=300 wheel=''
instance=${STREAMINGCANDLE_INSTANCE:-}
changes=0 going_back_to='' ran_before='' scratch='' restarting=''

say() { printf '%s\n' "$*"; }
fail() {
    printf 'deploy-production.sh: %s\n' "$*" >&2
    exit 1
}
absolute() { # PATH, meant from the folder that this was called from; in `found`
    found=$1
    [[ $found == /* ]] || found=${called_from%/}/$found
}
misused() {
    printf 'deploy-production.sh: %s; see --help\n' "$*" >&2
    exit 2
}

# change WHAT COMMAND...: do it and say so; with --dry-run and --check say it only.
change() {
    local what=$1
    shift
    changes=$((changes + 1))
    if ((is_dry)); then
        say "would: $what"
    else
        say "$what"
        "$@"
    fi
}

parse() {
    local found
    while (($#)); do
        case $1 in
            --help | -h)
                usage
                exit 0
                ;;
            --check) is_check=1 is_dry=1 ;;
            --dry-run) is_dry=1 ;;
            --rollback | --uninstall)
                [[ $action == deploy ]] || misused "--rollback and --uninstall exclude each other"
                action=${1#--}
                ;;
            --prefix | --python | --wheels | --wait)
                (($# > 1)) && [[ -n $2 ]] || misused "$1 needs a value"
                absolute "$2"
                case $1 in
                    --prefix) prefix=$found ;;
                    --python) python=$2 && [[ $2 != */* ]] || python=$found ;;
                    --wheels) wheels=$found ;;
                    --wait)
                        [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] || misused "--wait $2: not a number of seconds"
                        wait_s=$2
                        ;;
                esac
                shift
                ;;
            -*) misused "unknown option $1" ;;
            *)
                [[ -z $wheel ]] || misused "one wheel, not also $1"
                absolute "$1"
                wheel=$found
                ;;
        esac
        shift
    done
    [[ -z ${CREDENTIALS_DIRECTORY:-} ]] || { absolute "$CREDENTIALS_DIRECTORY" && CREDENTIALS_DIRECTORY=$found; }
    if [[ $action == deploy ]]; then
        [[ -n $wheel ]] || ((is_check)) || misused "name the wheel"
    else
        [[ -z $wheel ]] || misused "--$action takes no wheel"
    fi
    [[ $instance =~ ^([0-9]{1,2}|[1-9][0-9]*[smhd])?$ ]] ||
        misused "STREAMINGCANDLE_INSTANCE=$instance: neither a number nor a timeframe like 1m"
}

# Where things are; `root` is empty for the host itself.
place() {
    if [[ $prefix != / ]]; then
        [[ -d $prefix ]] || fail "prefix $prefix: no such folder; make it first"
        prefix=$(cd "$prefix" && pwd -P)
        [[ $prefix =~ ^[A-Za-z0-9/._+-]+$ ]] || fail "prefix $prefix: letters, digits and /._+- alone, for the units"
    fi
    root=${prefix%/}
    home=$root/opt/streamingcandle
    removed=$home.removed # what --uninstall has still to delete
    copies=$root/run/streamingcandle-doctor
    etc=$root/etc/streamingcandle
    state=$root/var/lib/kafka-streams/streamingcandle
    logs=$root/var/log/streamingcandle
    units=$root/etc/systemd/system
    wants=$units/multi-user.target.wants
    systemctl=systemctl
    if [[ -n $root ]]; then
        systemctl=${STREAMINGCANDLE_SYSTEMCTL:-}
    else
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    fi
    is_root=0
    [[ $(id -u) != 0 ]] || is_root=1
    if [[ -z $root ]] && ! ((is_root || is_dry)); then
        fail "not root; run it with sudo, or try it below --prefix DIR"
    fi
    sources=$(cd "${script%/*}/systemd" && pwd)
}

tell_systemd() {
    if [[ -n $systemctl ]]; then
        "$systemctl" "$@" 9>&-
    else
        say "systemd is not told: systemctl $*"
    fi
}

# ---- what must not be ours to change

is_ours() { [[ -f $1 && ! -L $1 && $(head -c ${#MARK} "$1") == "$MARK" ]]; }

refuse_foreign() {
    local path
    for path in "$home" "$removed"; do
        [[ ! -e $path && ! -L $path ]] || [[ -f $path/.deployed-here ]] ||
            [[ -d $path && -z $(ls -A "$path") ]] || fail "$path: not made by this script; move it away"
    done
    for path in "$home/current" "$home/previous" "$home/before"; do
        [[ ! -e $path && ! -L $path ]] || [[ -L $path && $(readlink "$path") == versions/* ]] ||
            fail "$path: not a link of this script's; move it away"
    done
    for path in "$units"/streamingcandle{,@}.service "$units"/streamingcandle{,@}.service.d/{10-backoff,20-secrets}.conf; do
        [[ ! -e $path && ! -L $path ]] || is_ours "$path" ||
            fail "$path: not written by this script; move it away, and keep your own lines in a drop-in of another name"
    done
    for path in "$etc" "$etc/secrets" "$state" "$logs"; do
        [[ ! -e $path && ! -L $path ]] || [[ -d $path ]] || fail "$path: is no folder; move it away"
    done
    refuse_others_folders
    [[ ! -L $etc/secrets ]] || fail "$etc/secrets: a link; its modes are not ours to set, put the files into a folder"
}

# Whoever may write a folder above could put a link into it, and root would hand over what that leads to.
refuse_others_folders() {
    local path above seen
    for path in "$home" "$etc" "$state" "$logs" "$units"; do
        above=${path%/*}
        while [[ ${#above} -gt ${#root} ]]; do
            if [[ -d $above ]]; then
                seen=$(stat -L -c '%u %a' "$above")
                if [[ ${seen% *} != 0 && ${seen% *} != "$(id -u)" ]] || (((8#${seen#* } & 8#002) != 0)); then
                    fail "$above: not root's alone (owner and mode $seen); whoever may write it could lead root elsewhere"
                fi
                # Debian's relatives let their log daemon's group write /var/log.
                (((8#${seen#* } & 8#020) == 0)) || [[ ! -L $path ]] ||
                    fail "$path: a link, in a folder that a group may write; make it a folder, or mount one there"
            fi
            above=${above%/*}
        done
    done
}

# ---- the host

own() { # USER:GROUP PATH, or what a link leads to; as who runs it where there is no such user
    ((is_root)) && [[ -n $service_ids ]] || return 0
    case $1 in
        root:root) chown 0:0 "$2" ;;
        root:*) chown "0:${service_ids#*:}" "$2" ;;
        *) chown "$service_ids" "$2" ;;
    esac
}

wanted_ids() {
    case $1 in
        root:root) say 0:0 ;;
        root:*) say "0:${service_ids#*:}" ;;
        *) say "$service_ids" ;;
    esac
}

find_user() {
    if [[ -n $root ]]; then
        service_ids=$(awk -F: -v name="$USER_NAME" '$1 == name { print $3 ":" $4 }' "$root/etc/passwd" 2>/dev/null || true)
    else
        service_ids=$(getent passwd "$USER_NAME" | cut -d : -f 3,4 || true)
    fi
}

make_user() {
    find_user
    [[ -z $service_ids ]] || return 0
    if [[ -n $root ]] && ! { ((is_root)) && [[ -f $root/etc/passwd ]]; }; then
        return 0 # a prefix of somebody's own: all is his
    fi
    change "user $USER_NAME: made" useradd ${root:+--prefix "$root"} --system --user-group \
        --home-dir "/var/lib/kafka-streams/streamingcandle" --no-create-home --shell /usr/sbin/nologin "$USER_NAME"
    find_user
}

folder() { # MODE USER:GROUP PATH
    if [[ ! -d $3 ]]; then
        change "$3: made" install -d -m "$1" "$3"
        ((is_dry)) || own "$2" "$3"
    else
        modes "$@"
    fi
}

modes() { # MODE USER:GROUP PATH, which is there
    local seen
    seen=$(stat -L -c '%a %u:%g' "$3")
    if [[ ${seen% *} != "$1" ]]; then
        change "$3: mode $1, was ${seen% *}" chmod "$1" "$3"
    fi
    if ((is_root)) && [[ -n $service_ids && ${seen#* } != "$(wanted_ids "$2")" ]]; then
        change "$3: owner $2" own "$2" "$3"
    fi
}

make_folders() {
    local path
    for path in "$root/opt" "$root/var/lib" "$root/var/log" "$units" "$root/var/lib/kafka-streams"; do
        [[ -d $path ]] || change "$path: made" install -d -m 755 "$path"
    done
    folder 750 "$USER_NAME:$USER_NAME" "$state"
    folder 750 "$USER_NAME:$USER_NAME" "$logs"
    folder 750 "root:$USER_NAME" "$etc"
    folder 700 root:root "$etc/secrets"
}

write_settings() {
    cat >"$etc/settings.toml.new" <<END
# Settings of this host's streamingcandle; docs/settings.md has them all. After a change: deploy-production.sh again.
# Secrets: a file each in $etc/secrets, like kafka_sasl_password.
state_dir = "$state"
data_dir = "$state/data"

# Without brokers everything happens in an embedded log in data_dir.
# [kafka]
# bootstrap.servers = "broker-1:9092,broker-2:9092"
END
    mv "$etc/settings.toml.new" "$etc/settings.toml"
}

make_settings() {
    local path
    [[ -e $etc/settings.toml ]] || change "$etc/settings.toml: written" write_settings
    for path in "$etc/settings.toml" "$etc/streamingcandle.env"; do
        [[ ! -f $path || -L $path ]] || modes 640 "root:$USER_NAME" "$path"
    done
    for path in "$etc"/secrets/*; do
        [[ ! -f $path || -L $path ]] || modes 600 root:root "$path"
        [[ ${path##*/} =~ ^[a-z][a-z0-9_]*$ ]] ||
            say "$path: not loaded: a secret is named like its variable, in small letters: kafka_sasl_password"
    done
}

# ---- versions

name_version() {
    [[ -f $wheel ]] || fail "$wheel: no such file"
    local name=${wheel##*/}
    [[ $name =~ ^streamingcandle-([0-9][A-Za-z0-9.+_]*)-[A-Za-z0-9._+-]*\.whl$ ]] ||
        fail "$name: not a wheel of streamingcandle"
    version=${BASH_REMATCH[1]}
    stated_sha256 "$name"
    wheel_sha256=$sha256
    version+=-${sha256:0:12}
    stated_sha256 requirements.txt
    requirements_sha256=$sha256
    is_as_stated "$wheel" "$wheel_sha256"
    is_as_stated "${wheel%/*}/requirements.txt" "$requirements_sha256"
    refuse_unpinned "${wheel%/*}/requirements.txt"
}

stated_sha256() { # NAME; in `sha256`
    local sums=${wheel%/*}/SHA256SUMS line
    [[ -f $sums ]] || fail "$sums: missing; make wheel writes it, put it beside the wheel"
    sha256=''
    while IFS= read -r line || [[ -n $line ]]; do
        [[ ${line:64} != "  $1" && ${line:64} != " *$1" ]] || sha256=${line:0:64}
    done <"$sums"
    [[ $sha256 =~ ^[0-9a-f]{64}$ ]] || fail "$sums: no line for $1; make wheel writes it with the wheel"
}

is_as_stated() { # PATH SHA256
    local seen
    [[ -f $1 ]] || fail "$1: missing; make wheel writes it, put it beside the wheel"
    seen=$(sha256sum <"$1")
    [[ ${seen%% *} == "$2" ]] || fail "$1: not the one that SHA256SUMS states; bring both again"
}

# Pinned names with checksums, as `uv export` writes them; no option and no address, which pip would follow as root.
refuse_unpinned() { # PATH
    local line number=0 is_open=''
    local pinned='^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!]+( ; [A-Za-z0-9_. ()'"'"'"<>=!]+)? \\$'
    local checked='^    --hash=sha256:[0-9a-f]{64}( \\)?$'
    while IFS= read -r line || [[ -n $line ]]; do
        number=$((number + 1))
        if [[ -n $is_open ]]; then
            [[ $line =~ $checked ]] || break
            [[ $line == *\\ ]] || is_open=''
        elif [[ $line =~ $pinned ]]; then
            is_open=1
        else
            [[ -z $line || $line == '#'* ]] || break
        fi
        line=''
    done <"$1"
    [[ -z $line$is_open ]] ||
        fail "$1: line $number: not a pinned name with its sha256 checksums; make wheel writes it"
}

need_programs() {
    command -v "$python" >/dev/null || fail "$python: not found; apt-get install python3 python3-venv python3-pip"
    "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python: older than 3.11; use --python"
    # --python came with pip 22.3.
    "$python" -I -c 'import pip, sys, venv; sys.exit([int(n) for n in pip.__version__.split(".")[:2]] < [22, 3])' \
        2>/dev/null || fail "$python has no venv, or no pip of 22.3 or newer; apt-get install python3-venv python3-pip"
    [[ -z $systemctl ]] || command -v "$systemctl" >/dev/null || fail "$systemctl: not found; this host needs systemd"
}

install_version() {
    local folder=$home/versions/$version
    if [[ -f $folder/.complete ]]; then
        return 0
    fi
    if [[ -e $folder && ! -f $folder/.begun ]]; then
        fail "$folder: not made by this script; move it away"
    fi
    change "version $version: installed" build_version "$folder"
}

# Killed half-way it is no folder of a version any more.
erase_version() {
    local removed=$home/versions/removed
    [[ -e $1 ]] || return 0
    [[ ! -e $removed ]] || rm -rf "$removed"
    mv -T "$1" "$removed"
    rm -rf "$removed"
}

build_version() {
    local -a from=() install=()
    local name=${wheel##*/}
    [[ -z $wheels ]] || from=(--no-index --find-links "$wheels")
    erase_version "$1"
    install -d -m 755 "$home/versions" "$1.new"
    touch "$1.new/.begun"
    mv -T "$1.new" "$1"
    "$python" -I -m venv --without-pip "$1" 9>&- || fail "$1: no virtual environment; see above (python3-venv?)"
    # Copies, since whoever may write beside the wheel could change it between the look and the installation.
    install -m 644 "$wheel" "$1/$name"
    install -m 644 "${wheel%/*}/requirements.txt" "$1/requirements.txt"
    is_as_stated "$1/$name" "$wheel_sha256"
    is_as_stated "$1/requirements.txt" "$requirements_sha256"
    refuse_unpinned "$1/requirements.txt"
    # One call for both: a dependency that has no checksum stops it. No source distribution: building one runs its code.
    printf '%s --hash=sha256:%s\n' "$1/$name" "$wheel_sha256" >"$1/wheel.txt"
    install=(--require-hashes --only-binary :all: --requirement "$1/requirements.txt" --requirement "$1/wheel.txt")
    "$python" -I -m pip --isolated --python "$1/bin/python" --disable-pip-version-check install --quiet --no-input \
        --root-user-action=ignore "${from[@]}" "${install[@]}" 9>&- || fail "$1: not installed; nothing was switched"
    rm -f "$1/$name"
    [[ -x $1/bin/streamingcandle ]] || fail "$1: the wheel has no program streamingcandle; nothing was switched"
    install -d -m 755 "$1/systemd"
    install -m 644 "$sources"/streamingcandle{,@}.service "$sources/backoff.conf" "$1/systemd"
    touch "$1/.complete"
}

# One value of an EnvironmentFile=, as systemd reads it: parts in quotes, then the rest without blanks at its ends.
read_value() { # TEXT; sets `value`
    local rest=$1 quoted=$'^[[:space:]]*\'([^\']*)\'(.*)$' double='^[[:space:]]*"(([^"\]|\\.)*)"(.*)$'
    value=''
    while true; do
        if [[ $rest =~ $quoted ]]; then
            value+=${BASH_REMATCH[1]} rest=${BASH_REMATCH[2]}
        elif [[ $rest =~ $double ]]; then
            rest=${BASH_REMATCH[3]}
            value+=$(printf '%s\n' "${BASH_REMATCH[1]}" | sed 's/\\\(["\\`$]\)/\1/g')
        else
            break
        fi
    done
    value+=$(sed 's/^[[:space:]]*//; s/[[:space:]]*$//; s/\\\(.\)/\1/g' <<<"$rest")
}

# A folder of secrets that the service's user can read, in `secrets`.
find_secrets() {
    secrets=${CREDENTIALS_DIRECTORY:-}
    [[ -z $secrets && -d $etc/secrets ]] || return 0
    secrets=$etc/secrets
    if [[ -z $root ]] && ((is_root)); then
        # That folder is root's alone: a copy for the user, as systemd makes one.
        # Each step by itself: `set -e` is off below ask_doctor, whose outcome is asked for.
        scratch=$(mktemp -d "$copies.$$.XXXXXX") || fail "$copies: no copy of the secrets for doctor; nothing was switched"
        cp -- "$secrets"/* "$scratch/" 2>/dev/null || true
        { chmod -R u=rX,go= "$scratch" && chown -R "$service_ids" "$scratch"; } ||
            fail "$scratch: not to be handed to $USER_NAME; nothing was switched"
        secrets=$scratch
    fi
}

drop_secrets() {
    [[ -z $scratch ]] || rm -rf "$scratch"
    scratch=''
}

# Copies of runs that were killed.
drop_stale_secrets() {
    local path pid
    for path in "$copies".*; do
        pid=${path#"$copies".}
        [[ -d /proc/${pid%%.*} ]] || change "$path: removed, left by a run that was killed" rm -rf "$path"
    done
}

# The new program, with this host's settings, for each unit that will run it.
ask_doctor() { # VERSION
    local unit secrets refused=''
    if [[ ! -x $home/versions/$1/bin/streamingcandle ]]; then
        say "would: ask doctor, once $1 is installed"
        return 0
    fi
    find_secrets
    for unit in $(wanted_units); do
        say "doctor of $1 for $unit:"
        doctor_of "$unit" "$home/versions/$1/bin/streamingcandle" doctor || refused+=" $unit"
    done
    drop_secrets
    [[ -z $refused ]] || say "doctor refuses:$refused" >&2
    [[ -z $refused ]]
}

# As the user that will run it, and with the unit's variables alone.
doctor_of() ( # UNIT COMMAND...
    exec 9>&-
    unit=${1%.service} path=$PATH found=()
    shift
    if [[ -z $root ]] && ((is_root)); then
        set -- setpriv --reuid="${service_ids%:*}" --regid="${service_ids#*:}" --init-groups --no-new-privs -- "$@"
    fi
    if [[ -f $etc/streamingcandle.env ]]; then
        while IFS= read -r line || [[ -n $line ]]; do
            [[ $line =~ ^[[:space:]]*([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*=(.*)$ ]] || continue
            name=${BASH_REMATCH[1]}
            read_value "${BASH_REMATCH[2]}"
            found+=("$name=$value")
        done <"$etc/streamingcandle.env"
    fi
    # Put before the command, since variables of the file may be named like ours.
    set -- "${#found[@]}" "${found[@]}" "$@"
    unset found
    # In the environment and not on a command line, which everybody may read.
    while read -r name; do export -n "${name?}"; done < <(compgen -e)
    export PATH=$path HOME=$state LC_ALL=C.UTF-8
    export STREAMINGCANDLE_PROFILE=production STREAMINGCANDLE_CONFIG=$etc/settings.toml
    [[ $unit != *@* ]] || export STREAMINGCANDLE_INSTANCE="${unit#*@}"
    [[ -z $secrets ]] || export CREDENTIALS_DIRECTORY=$secrets
    cd /
    (($1 == 0)) || export "${@:2:$1}"
    shift "$(($1 + 1))"
    exec "$@"
)

# ---- units

unit_name() {
    if [[ -n $instance ]]; then
        say "streamingcandle@$instance.service"
    else
        say streamingcandle.service
    fi
}

enabled_units() {
    local path
    for path in "$wants"/streamingcandle{,@*}.service; do
        [[ ! -L $path ]] || say "${path##*/}"
    done
}

# Enabled or not.
running_units() {
    [[ -n $systemctl ]] || return 0
    "$systemctl" list-units --plain --no-legend 'streamingcandle*' 9>&- | awk '{ print $1 }' |
        grep '^streamingcandle\(@.*\)\?\.service$' || true
}

# All that are enabled; the one asked for too, or the plain one where there is none.
wanted_units() {
    local found
    found=$(enabled_units)
    if [[ -n $instance || -z $found ]]; then
        found+=$'\n'$(unit_name)
    fi
    sort -u <<<"$found" | sed '/^$/d'
}

refuse_double_work() {
    local found
    found=$(wanted_units)
    if grep -q '^streamingcandle\(@[0-9]*\)\?\.service$' <<<"$found" && grep -q '@[0-9]*[smhd]\.service$' <<<"$found"; then
        fail "units $(tr '\n' ' ' <<<"$found"): one of all timeframes and one of a single timeframe would both publish" \
            "it; disable one of them first (systemctl disable --now UNIT)"
    fi
}

secrets_drop_in() {
    local path is_any=0
    say "$MARK's deploy-production.sh: a line for each file in $etc/secrets."
    say "[Service]"
    for path in "$etc"/secrets/*; do
        [[ -f $path && ${path##*/} =~ ^[a-z][a-z0-9_]*$ ]] || continue
        say "LoadCredential=${path##*/}:$path"
        is_any=1
    done
    ((is_any)) || say "# none"
}

has_back_off() {
    local line
    [[ -n $systemctl ]] || return 1
    line=$("$systemctl" --version 9>&- | head -n 1)
    [[ $line =~ ^systemd\ ([0-9]+) ]] && ((BASH_REMATCH[1] >= 254))
}

put() { # PATH, with what comes in; true if that changed it
    local text
    text=$(cat)
    if [[ -f $1 && $(cat "$1") == "$text" ]]; then
        return 0
    fi
    change "$1: written" write "$1" "$text"
}

write() {
    install -d -m 755 "$(dirname "$1")"
    printf '%s\n' "$2" >"$1.new"
    chmod 644 "$1.new"
    mv "$1.new" "$1"
}

install_units() { # VERSION
    local name texts=$home/versions/$1/systemd
    [[ -d $texts ]] || texts=$sources # a dry run
    for name in streamingcandle streamingcandle@; do
        # Below a prefix the paths are those there.
        put "$units/$name.service" < <(sed "s#/opt/streamingcandle#$home#g; s#=\(-\?\)/etc/streamingcandle#=\1$etc#g" \
            "$texts/$name.service")
        put "$units/$name.service.d/20-secrets.conf" < <(secrets_drop_in)
        if ((with_back_off)); then
            put "$units/$name.service.d/10-backoff.conf" <"$texts/backoff.conf"
        fi
    done
}

# ---- the switch

link() { # NAME VERSION
    ln -sfn "versions/$2" "$home/$1.new"
    mv -T "$home/$1.new" "$home/$1"
}

linked() {
    local target
    target=$(readlink "$home/$1" 2>/dev/null) || return 0
    say "${target#versions/}"
}

# What the running processes were started with: another text, and they are to be started again.
applied_text() { # VERSION
    local path
    say "$1"
    for path in "$etc/settings.toml" "$etc/streamingcandle.env" "$etc"/secrets/*; do
        [[ ! -e $path ]] || stat -L -c '%n %s %Y %i' "$path"
    done
    for path in "$units"/streamingcandle{,@}.service{,.d/*.conf}; do
        [[ ! -e $path ]] || sha256sum "$path"
    done
}

is_up() { # UNIT
    [[ -z $systemctl ]] || "$systemctl" is-active --quiet "$1" 9>&-
}

restart() { # UNIT; Type=notify: systemctl comes back when the unit is ready, or has failed
    local code=0
    if [[ -z $systemctl ]]; then
        tell_systemd restart "$1"
        return 0
    fi
    # Beside us, since a signal is heeded in a `wait` and not before the end of a command.
    timeout --foreground --kill-after=5 "$wait_s" "$systemctl" restart "$1" 9>&- &
    restarting=$!
    wait "$restarting" || code=$?
    restarting=''
    if ((code == 124 || code == 137)); then
        say "$1: not ready after $wait_s s" >&2
        return 1
    elif ((code)); then
        say "$1: did not start; journalctl -u $1 says why" >&2
        return 1
    fi
    sleep "$SETTLE_S"
    is_up "$1" || {
        say "$1: ended within $SETTLE_S s of being ready; journalctl -u $1 says why" >&2
        return 1
    }
}

start_all() {
    local unit
    tell_systemd daemon-reload || return 1
    for unit in $(wanted_units); do
        restart "$unit" || return 1
    done
    # Last: one that never started is nothing that the next deployment has to start.
    for unit in $(wanted_units); do
        [[ -z $systemctl || -L $wants/$unit ]] || tell_systemd enable "$unit" || return 1
    done
}

go_back() { # whatever ended us between switch and readiness
    local former=$going_back_to unit failed=''
    going_back_to=''
    trap '' INT TERM HUP PIPE
    if [[ $former == none ]]; then
        say "going back: no version ran here before, so none runs now" >&2
        for unit in $(wanted_units); do tell_systemd disable --now "$unit"; done
        rm -f "$home/current"
        rm -f "$home/before"
        return 0
    fi
    say "going back to $former" >&2
    link current "$former"
    install_units "$former"
    tell_systemd daemon-reload
    for unit in $(wanted_units); do
        if grep -qxF "$unit" <<<"$ran_before"; then
            restart "$unit" || failed+=" $unit"
        else
            say "$unit: stopped and disabled, as before" >&2
            tell_systemd disable --now "$unit"
        fi
    done
    rm -f "$home/before"
    if [[ -n $failed ]]; then
        say "$former does not start either:$failed; journalctl -u UNIT says why; then this script again" >&2
    elif [[ -n $ran_before ]]; then
        applied_text "$former" >"$home/applied"
        say "$former runs again: ${ran_before//$'\n'/ }" >&2
    else
        say "$former is current again; no unit ran before, so none runs now" >&2
    fi
}

at_end() {
    local code=$?
    set +e # what fails on the way back keeps nothing after it from being tried
    drop_secrets
    [[ -z $restarting ]] || kill "$restarting" 2>/dev/null || true
    if [[ -n $going_back_to ]]; then
        ((code)) || code=1
        go_back
    fi
    exit "$code"
}

# While the link `before` is there, `current` is not known to be ready, and `before` is what ran: also for the next run,
# where this one is killed. `versions/none` is none.
switch_to() { # VERSION
    local current former had=$changes unit
    current=$(linked current)
    former=$(linked before)
    [[ -z $former ]] || change "a run was killed on its way from $former: finished" true
    former=${former:-${current:-none}}
    if ((is_dry)); then
        install_units "$1"
        [[ $current == "$1" ]] || change "switched to $1, from $former" true
        if ((changes > had)) || ! is_applied "$1"; then
            change "restarted: $(wanted_units | tr '\n' ' ')" true
        fi
        return 0
    fi
    ran_before=$(units_that_ran)
    going_back_to=$former
    [[ $former == "$1" ]] || link before "$former"
    install_units "$1"
    if [[ $current != "$1" ]] || ! is_applied "$1"; then
        rm -f "$home/applied"
        [[ $current == "$1" ]] || change "switched to $1, from $former" link current "$1"
        change "restarted: $(wanted_units | tr '\n' ' ')" true
        start_all || exit 1
        applied_text "$1" >"$home/applied"
    fi
    going_back_to=''
    [[ $former == "$1" ]] || say "$(date -u +%FT%TZ) $1, before: $former" >>"$home/deployments"
    if [[ $former == "$1" || $former == none ]]; then
        rm -f "$home/before"
    else
        mv -T "$home/before" "$home/previous"
    fi
}

units_that_ran() {
    local unit
    for unit in $(wanted_units); do
        if [[ -L $wants/$unit ]] || { [[ -n $systemctl ]] && is_up "$unit"; }; then
            say "$unit"
        fi
    done
}

# Does everything run that should, with the settings that are there?
is_applied() { # VERSION
    local unit
    for unit in $(wanted_units); do
        [[ -z $systemctl || -L $wants/$unit ]] && is_up "$unit" || return 1
    done
    [[ $(cat "$home/applied" 2>/dev/null) == "$(applied_text "$1")" ]]
}

remove_old_versions() {
    local folder name kept
    for folder in "$home"/versions/{removed,*.new}; do
        [[ ! -d $folder ]] || change "$folder: removed, left by a run that was killed" rm -rf "$folder"
    done
    kept=$(linked current)$'\n'$(linked previous)$'\n'$(linked before)
    [[ -n $(linked previous) ]] || return 0
    for folder in "$home"/versions/*/; do
        name=$(basename "$folder")
        if [[ -f $folder/.begun ]] && ! grep -qxF "$name" <<<"$kept"; then
            change "version $name: removed, $KEPT_VERSIONS are kept" erase_version "${folder%/}"
        fi
    done
}

# ---- what is asked for

take_lock() {
    ((is_dry)) && return 0
    install -d -m 755 "$home"
    exec 9<"$home"
    flock -n 9 || fail "another deployment runs here; wait for its end"
    # Removed by it (--uninstall) just now?
    [[ $(stat -L -c %i "/proc/self/fd/9") == "$(stat -c %i "$home" 2>/dev/null)" ]] || fail "$home: gone; run this again"
    [[ $action != deploy || -f $home/.deployed-here ]] || touch "$home/.deployed-here"
}

deploy() {
    need_programs
    [[ -z $wheel ]] || name_version
    with_back_off=0
    ! has_back_off || with_back_off=1
    refuse_foreign
    refuse_double_work
    take_lock
    trap at_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    drop_stale_secrets
    erase_removed
    make_user
    make_folders
    make_settings
    if [[ -n $wheel ]]; then
        install_version
    else
        version=$(linked current)
        [[ -n $version ]] || fail "nothing is deployed here"
    fi
    ask_doctor "$version" || fail "doctor refuses, see above; nothing was switched, $(running)"
    switch_to "$version"
    remove_old_versions
    if ((is_check && changes)); then
        say "$changes differences"
        exit 1
    fi
    ((changes)) || say "nothing to do: $(running)"
}

running() {
    local current
    current=$(linked current)
    if [[ -L $home/before ]]; then
        say "a run was killed on its way from $(linked before) to $current: run this again, or --rollback"
    else
        say "${current:-no version} runs"
    fi
}

# The version before; the one that ran, where a deployment of another was killed. A rollback that was killed goes on.
way_back() {
    local current before previous
    current=$(linked current) before=$(linked before) previous=$(linked previous)
    if [[ -n $before && $before != none && $before != "$current" && $current != "$previous" ]]; then
        say "$before"
    else
        say "$previous"
    fi
}

rollback() {
    local former
    with_back_off=0
    ! has_back_off || with_back_off=1
    refuse_foreign
    former=$(way_back)
    [[ -n $former && -f $home/versions/$former/.complete ]] || fail "no version before this one; $(running)"
    take_lock
    drop_stale_secrets
    find_user
    trap at_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    switch_to "$former"
}

delete_removed() { # its mark last: what is left belongs to us
    find "$removed" -mindepth 1 -maxdepth 1 ! -name .deployed-here -exec rm -rf {} +
    rm -rf "$removed"
}

erase_removed() {
    [[ ! -d $removed ]] || change "$removed: removed, left by a run that was killed" delete_removed
}

erase_home() {
    mv -T "$home" "$removed"
    delete_removed
}

uninstall() {
    local unit path
    refuse_foreign
    if [[ -d $home ]]; then
        take_lock
    fi
    drop_stale_secrets
    erase_removed
    for unit in $({ enabled_units; running_units; } | sort -u); do
        change "$unit: stopped and disabled" tell_systemd disable --now "$unit"
    done
    for path in "$units"/streamingcandle{,@}.service{.d/10-backoff.conf,.d/20-secrets.conf,}{,.new}; do
        [[ ! -f $path ]] || change "$path: removed" rm "$path"
    done
    for path in "$units"/streamingcandle{,@}.service.d; do
        [[ ! -d $path || -n $(ls -A "$path") ]] || change "$path: removed" rmdir "$path"
    done
    if [[ -d $home ]]; then
        ((is_dry)) || tell_systemd daemon-reload
        change "$home: removed" erase_home
    fi
    say "kept: $etc $state $logs and user $USER_NAME"
}

parse "$@"
place
"$action"
