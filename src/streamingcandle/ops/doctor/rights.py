"""Rights, judged: what `run` does with each topic, the group and the transactional id."""

from collections.abc import Mapping

from streamingcandle.kafka.survey import GroupAnswer, TopicAnswer
from streamingcandle.ops.doctor.finding import Deployment, Finding, fault, ok, warning


def judge_rights(
    deployment: Deployment, topics: Mapping[str, TopicAnswer], group: GroupAnswer | None, transactions: str
) -> list[Finding]:
    """A line for each right that is missing; topics that cannot be seen are told of with the topics."""
    needed: dict[str, tuple[str, ...]] = dict.fromkeys(deployment.topics, ("WRITE",))
    needed[deployment.ticks] = ("READ",)
    needed[deployment.snapshots] = ("READ", "WRITE")
    found = [
        # Without snapshots `run` says so and goes on.
        (warning if name == deployment.snapshots else fault)(
            "rights", f"{name}: no {right} right", f"grant {right} on topic {name}"
        )
        for name, rights in needed.items()
        for right in rights
        if not topics[name].refusal and right not in topics[name].operations
    ]
    if group is not None and group.refusal:
        what = f"group {deployment.application_id}: {group.refusal}"
        found.append(fault("rights", what, f"grant READ on group {deployment.application_id}"))
    if transactions:
        what = f"transactional ids {deployment.application_id}-…: {transactions}"
        do = f"grant WRITE and DESCRIBE on transactional ids that begin with {deployment.application_id}"
        if "authoriz" not in transactions.lower():
            do = "see that the brokers' topic __transaction_state has its replicas, and its limits are met"
        found.append(fault("rights", what, do))
    return found or [ok("rights", "to read ticks, to write candles and letters, for the group and its transactions")]
