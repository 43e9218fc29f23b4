"""The group and its commits, judged."""

from collections.abc import Mapping

from streamingcandle.candles.commit import Commit
from streamingcandle.errors import SettingsError
from streamingcandle.interfaces import Committed
from streamingcandle.kafka.survey import GroupAnswer
from streamingcandle.ops.doctor.finding import Deployment, Finding, fault, hours, ok, warning

RETENTION_MINUTES_MIN = 7 * 24 * 60
"""Kafka's own default: more than any holiday between two sessions."""


def judge_group(deployment: Deployment, group: GroupAnswer, partitions: int) -> list[Finding]:
    """Members, and what the group committed on a tick topic of so many partitions."""
    found: list[Finding] = []
    name = deployment.application_id
    strangers = [member for member in group.members if not member.startswith(name)]
    if strangers:
        # A warning: whoever sets `client.id` calls ours so.
        what = f"group {name}: members that are not named as ours are: {', '.join(strangers)}"
        do = "where they are another program's: stop it, or set another STREAMINGCANDLE_APPLICATION_ID"
        found.append(warning("group", what, do))
    found += judge_commits(deployment, group.commits, partitions)
    found += _gone(deployment, group)
    found += _short_lived(group)
    state = f"{len(group.members)} members, {group.state.lower()}" if group.members else "no member"
    return found or [ok("group", f"{name}: {state}; {_commits(group.commits)}")]


def _commits(commits: Mapping[int, Committed]) -> str:
    return f"commits of {len(commits)} partitions" if commits else "nothing committed yet"


def judge_commits(deployment: Deployment, commits: Mapping[int, Committed], partitions: int) -> list[Finding]:
    """Of another program, of a newer version, or of a tick topic with other partitions."""
    decoded: list[Commit] = []
    foreign: list[int] = []
    for number, committed in sorted(commits.items()):
        try:
            commit = Commit.decode(committed.metadata)
        except SettingsError as error:
            return [fault("group", str(error), "start that version again (docs/upgrading.md)")]
        if commit is None:
            foreign.append(number)
        else:
            decoded.append(commit)
    found = []
    where = f"group {deployment.application_id}"
    if foreign:
        what = f"{where}: offsets of partitions {', '.join(map(str, foreign))} are another program's, or set by hand"
        do = "`streamingcandle run --adopt` goes on from them; or set another STREAMINGCANDLE_APPLICATION_ID"
        found.append(fault("group", what, do))
    before = max((commit.partitions for commit in decoded), default=0)
    if before > partitions:
        what = (
            f"{deployment.ticks}: {partitions} partitions, {before} at the group's last commit: made anew, with fewer"
        )
        do = "make it anew with as many as before: kept so, other partitions' instruments begin as if never seen"
        found.append(fault("group", what, do))
    if 0 < before < partitions and any(commit.open_windows for commit in decoded):
        what = f"{deployment.ticks}: partitions were added ({before}, now {partitions}) while windows are open"
        do = "stop the feed until they are out, or set STREAMINGCANDLE_PARTITION_CHECK=warn once"
        found.append((warning if deployment.is_split_accepted else fault)("group", what, do))
    return found


def _gone(deployment: Deployment, group: GroupAnswer) -> list[Finding]:
    gone = {
        number: group.begins[number] - committed.offset
        for number, committed in group.commits.items()
        if committed.offset < group.begins.get(number, 0)
    }
    if not gone:
        return []
    what = f"{deployment.ticks}: {sum(gone.values())} ticks of {len(gone)} partitions are gone before they were read"
    do = "give the tick topic a longer retention; the candles of that time will say `complete: false`"
    if deployment.is_stopped_by_gone:
        return [fault("group", what, f"{do}, once STREAMINGCANDLE_GONE_OFFSETS=continue lets it go on")]
    return [warning("group", what, do)]


def _short_lived(group: GroupAnswer) -> list[Finding]:
    minutes = group.retention_minutes
    if minutes is None or minutes >= RETENTION_MINUTES_MIN:
        return []
    what = f"offsets.retention.minutes is {minutes} at the brokers: a service stopped for {hours(minutes * 60_000)}"
    do = f"in each broker's server.properties set offsets.retention.minutes={RETENTION_MINUTES_MIN}, and restart it"
    return [warning("group", f"{what} loses its offsets", do)]
