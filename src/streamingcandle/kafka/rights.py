"""The rights a run needs at the brokers, and no others: the one list that docs/security.md and the checks are of.

Describe comes with Read and Write. No right on the cluster is needed.
"""

import shlex
from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from streamingcandle.partition import Topics


class Right(msgspec.Struct, frozen=True):
    """One operation on one resource, in the words of Kafka's `kafka-acls.sh`."""

    operation: str
    resource: str
    """`topic`, `group` or `transactional-id`."""
    name: str
    why: str = ""
    is_prefix: bool = False
    """Whether `name` is the beginning of the names it is for."""
    is_needed: bool = True
    """Without the others a run warns and goes on."""

    def __str__(self) -> str:
        """As an operator reads it."""
        return f"{self.operation} on {self.resource} {self.name}{'*' if self.is_prefix else ''}"


def transactional_right(group: str) -> Right:
    """Every instance has an id of its own that begins with the application's."""
    return Right("Write", "transactional-id", f"{group}-", "candles and offsets in one transaction", is_prefix=True)


def group_right(group: str) -> Right:
    """To be a member, and to commit offsets."""
    return Right("Read", "group", group, "share partitions, commit offsets")


def rights(application_id: str, topics: Topics) -> tuple[Right, ...]:
    """What `run` needs and, last, what it is better off with."""
    snapshots = f"{application_id}-snapshots"
    letters = (topics.dead_letters, topics.late)
    return (
        Right("Read", "topic", topics.ticks, "ticks in"),
        group_right(application_id),
        *(Right("Write", "topic", name, "candles out") for name in topics.candles),
        *(Right("Write", "topic", name, "records not in candles") for name in letters),
        transactional_right(application_id),
        Right("Read", "topic", snapshots, "restart from the state of another host", is_needed=False),
        Right("Write", "topic", snapshots, "leave the state for another host", is_needed=False),
        Right("Create", "topic", snapshots, "make that topic at the first run", is_needed=False),
        *(Right("DescribeConfigs", "topic", name, "its own limit of a record", is_needed=False) for name in letters),
    )


def commands(wanted: Iterable[Right], bootstrap_servers: str, principal: str) -> list[str]:
    """What an administrator types to grant them: few commands, each for one operation."""

    def kind(right: Right) -> tuple[bool, bool, str]:
        return not right.is_needed, right.is_prefix, right.operation

    lines = []
    for (_, is_prefix, operation), same in groupby(sorted(wanted, key=kind), kind):
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--add"]
        words += ["--allow-principal", f"User:{principal}", "--operation", operation]
        for right in same:
            words += [f"--{right.resource}", right.name]
        lines.append(shlex.join([*words, "--resource-pattern-type", "prefixed"] if is_prefix else words))
    return lines


def told(missing: Sequence[Right], bootstrap_servers: str, principal: str) -> str:
    """One line: which, and the commands that grant them."""
    names = ", ".join(map(str, missing))
    cure = " && ".join(commands(missing, bootstrap_servers, principal))
    return f"broker {bootstrap_servers} does not grant {principal} {names}; have it granted: {cure}"
