"""All that needs a broker: asked in an order in which one answer tells what else can be asked."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from streamingcandle.aside import begin
from streamingcandle.errors import SettingsError
from streamingcandle.interfaces import Clock
from streamingcandle.kafka.brokers import PASSING, RETRY_MS
from streamingcandle.kafka.client import KafkaSettings
from streamingcandle.kafka.exposure import exposures
from streamingcandle.kafka.neighbours import CURE, neighbours
from streamingcandle.kafka.reach import LIMIT_S, BrokerAnswer, addresses, ask_broker
from streamingcandle.kafka.survey import (
    ClockAnswer,
    GroupAnswer,
    Newest,
    TopicAnswer,
    ask_clock,
    ask_group,
    ask_newest,
    ask_topics,
    ask_transactions,
)
from streamingcandle.ops.doctor.brokers import judge_brokers
from streamingcandle.ops.doctor.clocks import CHECK as CLOCK
from streamingcandle.ops.doctor.clocks import judge_clock
from streamingcandle.ops.doctor.finding import Deployment, Finding, fault, not_made, warning
from streamingcandle.ops.doctor.group import judge_group
from streamingcandle.ops.doctor.partitioner import CHECK as PARTITIONER
from streamingcandle.ops.doctor.partitioner import judge_keys
from streamingcandle.ops.doctor.rights import judge_rights
from streamingcandle.ops.doctor.timestamps import judge_stamps
from streamingcandle.ops.doctor.topics import judge_topics

Answer = TypeVar("Answer")

BROKERS_MAX = 24
"""Of a larger cluster these many are asked; each takes a connection and a thread."""
STEP_S = 6.0
"""A question to the cluster; once one goes unanswered no further one is asked behind it."""
MOVE_MS = 2_000
"""A leader or a coordinator on the move has arrived by then."""
NEEDY = "topics, partitioner, rights, group, snapshots, clock"


def check_cluster(settings: KafkaSettings, deployment: Deployment, clock: Clock) -> list[Finding]:
    """Some 20 s at the very most: two rounds of brokers only where those of the list send us elsewhere."""
    protocol = settings.properties.get("security.protocol", "plaintext").upper()
    mechanism = settings.properties.get("sasl.mechanism", settings.properties.get("sasl.mechanisms", ""))
    bootstrap = addresses(settings.bootstrap_servers)
    answers = _ask_brokers(settings, bootstrap)
    is_answered = any(not answer.trouble for answer in answers)
    # Both at once: a broker that is away holds nothing up.
    advertised = sorted({address for answer in answers for address in answer.advertised} - set(bootstrap))
    further = begin(lambda: _ask_brokers(settings, advertised[:BROKERS_MAX]))
    found = (
        _check_inside(settings, deployment, clock)
        if is_answered
        else [not_made("cluster", f"{NEEDY}: no broker answers")]
    )
    answers += further.result(LIMIT_S + 1)
    told = judge_brokers(answers, bootstrap, protocol=protocol, mechanism=mechanism, now_ms=clock.wall_ms())
    exposed = [warning(exposure.check, exposure.what, exposure.do) for exposure in exposures(settings)]
    return [*exposed, *told, *found]


def _ask_brokers(settings: KafkaSettings, asked: list[str]) -> list[BrokerAnswer]:
    futures = {address: begin(partial(ask_broker, settings, address)) for address in asked}
    answers = []
    for address, future in futures.items():
        try:
            answers.append(future.result(LIMIT_S))
        except TimeoutError:
            answers.append(BrokerAnswer(address=address, trouble="silent"))
    return answers


def _check_inside(settings: KafkaSettings, deployment: Deployment, clock: Clock) -> list[Finding]:
    transactions = begin(lambda: ask_transactions(settings))
    topics, trouble = _result("topics", _asked(clock, lambda: ask_topics(settings, deployment.topics)))
    if topics is None:
        return [*trouble, not_made("cluster", f"{NEEDY}: the brokers do not tell the topics")]
    found = judge_topics(deployment, topics)
    asked_clock = begin(lambda: _ask_clock(settings, clock, topics[deployment.snapshots]))
    found += _check_group(settings, deployment, topics, transactions, clock)
    stamped, trouble = _result(CLOCK, asked_clock.result)
    if stamped is not None:
        trouble = [judge_clock(stamped) if isinstance(stamped, ClockAnswer) else not_made(CLOCK, stamped)]
    return found + trouble


def _check_group(
    settings: KafkaSettings,
    deployment: Deployment,
    topics: dict[str, TopicAnswer],
    transactions: Future[str],
    clock: Clock,
) -> list[Finding]:
    ticks = topics[deployment.ticks]
    found: list[Finding] = []
    group: GroupAnswer | None = None
    if ticks.refusal:
        found.append(not_made("group", f"group, partitioner: {deployment.ticks} cannot be seen"))
    else:
        group, trouble = _result("group", _asked(clock, lambda: ask_group(settings, ticks.partitions)))
        found += trouble
    refused, trouble = _result("rights", transactions.result)
    found += trouble
    if refused is not None:
        found += judge_rights(deployment, topics, group, refused)
    if group is None or group.refusal:
        return found
    found += judge_group(deployment, group, ticks.partitions)
    places = range(ticks.partitions)
    others, trouble = _result("group", begin(lambda: neighbours(settings, deployment.candles, places, clock)).result)
    found += [*trouble, *(fault("group", str(neighbour), CURE) for neighbour in others or ())]
    if "READ" not in ticks.operations:
        return [*found, not_made(PARTITIONER, f"{deployment.ticks} may not be read")]
    newest, trouble = _result(PARTITIONER, _asked(clock, lambda: ask_newest(settings, group.begins, group.ends)))
    return [*found, *(trouble if newest is None else judge_newest(deployment, newest, ticks.partitions))]


def judge_newest(deployment: Deployment, newest: Sequence[Newest], partitions: int) -> list[Finding]:
    """What the newest ticks of a topic of so many partitions tell of their producers."""
    keys = judge_keys(deployment, [(tick.partition, tick.key) for tick in newest], partitions)
    return [keys, *judge_stamps(deployment.ticks, [tick.timestamp_ms for tick in newest])]


def _ask_clock(settings: KafkaSettings, clock: Clock, snapshots: TopicAnswer) -> ClockAnswer | str:
    """By the snapshots topic, where the broker stamps what comes there."""
    if snapshots.refusal:
        return f"{snapshots.name} cannot be seen"
    if (snapshots.config or {}).get("message.timestamp.type") != "LogAppendTime":
        return (
            f"{snapshots.name} does not have the brokers' time, or may not be asked: "
            "message.timestamp.type=LogAppendTime tells it"
        )
    if "WRITE" not in snapshots.operations:
        return f"{snapshots.name} may not be written"
    return ask_clock(settings, clock, snapshots.name)


def _asked(clock: Clock, call: Callable[[], Answer]) -> Callable[[float], Answer]:
    """Ask, and again while a leader or a coordinator is on the move, as that of a topic just made is."""

    def again() -> Answer:
        until_ms = clock.monotonic_ms() + MOVE_MS
        while True:
            try:
                return call()
            except KafkaException as error:
                code = error.args[0].code()
                is_passing = code in PASSING or code == KafkaError.UNKNOWN_TOPIC_OR_PART
                if not is_passing or clock.monotonic_ms() > until_ms:
                    raise
                clock.sleep_ms(RETRY_MS)

    return begin(again).result


def _result(check: str, await_it: Callable[[float], Answer]) -> tuple[Answer | None, list[Finding]]:
    """The answer, or the line that says why there is none."""
    do = "look at the brokers' logs, then type it again"
    try:
        return await_it(STEP_S), []
    except TimeoutError:
        return None, [fault(check, "no answer in time", do)]
    except KafkaException as error:
        return None, [fault(check, error.args[0].str(), do)]
    except SettingsError as error:
        return None, [fault("settings", str(error), "correct these settings of the client")]
