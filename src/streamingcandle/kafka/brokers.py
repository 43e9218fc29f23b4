"""The brokers as we see them: asked, lost, back.

Before the first poll a question is asked again for the setting `wait`. Once running it is asked once: the
path polls on, so that the group keeps us, and asks again later, without end. The log says when the brokers
are lost and when they are back, one line each; the client's own words go to the debug level.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from streamingcandle.errors import MissingTopicError
from streamingcandle.interfaces import BrokerAwayError, Clock
from streamingcandle.kafka.client import KafkaSettings, Properties, admin_properties, new_client
from streamingcandle.kafka.refusals import is_refusal, missing_rights, no_right, outside, refused
from streamingcandle.kafka.rights import Right

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

CALL_TIMEOUT_S = 2.0
"""One question, or a piece of a longer wait: between two of them a stop is heeded."""
ANSWER_TIMEOUT_S = CALL_TIMEOUT_S + 1
"""Past its own timeout the client has lost a question from sight."""
PROBE_TIMEOUT_S = 1.0
"""A broker that does not tell its topics within this is taken for lost, until it does."""
RETRY_MS = 100
SHAKEN_MS = 60_000
"""So long after a loss the group may still be sorting out who is who."""
STOP_MS = 2_000
"""After a stop the brokers have this long: the process ends within 5 s."""
PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError._TRANSPORT,  # noqa: SLF001 - the client's public constants
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._NOENT,  # noqa: SLF001 - no leader known
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._WAIT_COORD,  # noqa: SLF001
    }
)
"""A leader or a coordinator on the move, a broker away: the question is asked again."""


class Brokers:
    """Asks in our name, and knows whether anybody answers."""

    def __init__(self, settings: KafkaSettings, clock: Clock, is_stopping: Callable[[], bool]) -> None:
        """Connects in the background; nothing is asked yet."""
        self.is_running = False
        """Whether the start is over: from then on the brokers are waited for without end."""
        self.losses = 0
        """How often a client of ours has found no broker."""
        self._settings = settings
        self._clock = clock
        self._is_stopping = is_stopping
        self._stop_by_ms: int | None = None
        self._lost_at_ms: int | None = None
        self._is_suspected = False
        self._back_at_ms: int | None = None
        self._cause = ""
        self._refused: KafkaError | None = None
        self._unanswered: set[str] = set()
        self.admin = self.new_admin()

    def new_admin(self) -> AdminClient:
        """A client of its own for one question."""
        return new_client(AdminClient, self._settings, self.watched(admin_properties(self._settings)))

    def watched(self, properties: Properties) -> dict[str, Any]:
        """Properties of a client whose errors we are told of, whenever that client is polled."""
        return {**properties, "error_cb": self._on_error}

    def _on_error(self, error: KafkaError) -> None:
        code = error.code()
        if is_refusal(error, is_running=self.is_running):
            self._refused = error
        if code == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - the client's public constant
            self.suspect()
        else:
            self._cause = error.str()

    def suspect(self) -> None:
        """Something says that the brokers are lost: the next poll looks."""
        self._is_suspected = True
        self.losses += 1

    @property
    def is_doubtful(self) -> bool:
        """Whether the brokers are lost or may be: `probe` tells."""
        return self._is_suspected or self._lost_at_ms is not None

    @property
    def is_shaken(self) -> bool:
        """Whether the brokers are lost, may be, or were a moment ago."""
        back_at_ms = self._back_at_ms
        return self.is_doubtful or (back_at_ms is not None and self._clock.monotonic_ms() < back_at_ms + SHAKEN_MS)

    @property
    def is_out_of_time(self) -> bool:
        """Whether a stop was asked for so long ago that nothing may be waited for any more."""
        if self._stop_by_ms is None and self._is_stopping():
            self._stop_by_ms = self._clock.monotonic_ms() + STOP_MS
        return self._stop_by_ms is not None and self._clock.monotonic_ms() >= self._stop_by_ms

    def ask(self, what: str, call: Callable[[], Answer], right: Right | None = None) -> Answer:
        """The answer. BrokerAwayError when nobody answers now, OutsideError when the answer is a refusal.

        `right`: what the question takes, where it is not one that `refusals.outside` knows.
        """
        until_ms = self._clock.monotonic_ms() + self._settings.ask_ms
        while True:
            try:
                answer = call()
            except (KafkaException, TimeoutError) as error:
                if isinstance(error, TimeoutError):
                    self.admin = self.new_admin()
                    cause = KafkaError(KafkaError._TIMED_OUT)  # noqa: SLF001 - the client's public constant
                else:
                    cause = error.args[0]
                if cause.code() not in PASSING:
                    raise outside(self._settings, what, cause, right) from error
                away = self.away(what, cause)
                is_over = self.is_running or self._is_stopping() or self._clock.monotonic_ms() > until_ms
                if is_over:
                    raise away from error
                self._clock.sleep_ms(RETRY_MS)
            else:
                if what in self._unanswered:
                    self._unanswered.discard(what)
                    logger.info("answered again: %s", what)
                return answer

    def check_rights(self) -> None:
        """RefusedError where a right on a topic is missing, all of them named; else the first candle would tell."""
        missing = self.ask("rights", lambda: missing_rights(self._settings, self.admin, CALL_TIMEOUT_S))
        if missing:
            raise no_right(self._settings, missing)

    def check_topics(self, names: Iterable[str]) -> None:
        """MissingTopicError names those that are not there, unless the user lets the brokers make them."""
        wanted = sorted(names)
        if not wanted or self._settings.properties.get("allow.auto.create.topics", "").lower() == "true":
            return

        def ask() -> list[str]:
            asked = self.admin.describe_topics(TopicCollection(wanted), request_timeout=PROBE_TIMEOUT_S)
            missing = []
            for name in wanted:
                try:
                    asked[name].result(PROBE_TIMEOUT_S + 1)
                except KafkaException as error:
                    code = error.args[0].code()
                    if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                        missing.append(name)
                    elif code != KafkaError.TOPIC_AUTHORIZATION_FAILED:  # said of all rights together
                        raise
            return missing

        missing = self.ask("topics", ask)
        if missing:
            what = f"topic{'s' if len(missing) > 1 else ''} {', '.join(missing)} at {self._settings.bootstrap_servers}"
            it = "them" if len(missing) > 1 else "it"
            raise MissingTopicError(f"{what}: missing; make {it} with `streamingcandle topics ensure`")

    def away(self, what: str, cause: KafkaError) -> BrokerAwayError:
        """Say once what goes unanswered though brokers are there, as of a coordinator; what to raise."""
        if self.probe() and what not in self._unanswered:
            self._unanswered.add(what)
            logger.warning("no answer, asked again until there is one: %s: %s", what, cause.str())
        return self._away(f"{what}: {cause.str()}")

    def _away(self, what: str) -> BrokerAwayError:
        cause = f": {self._cause}" if self._cause else ""
        return BrokerAwayError(f"{what} at {self._settings.bootstrap_servers}{cause}; is the broker up?")

    def check(self) -> None:
        """BrokerAwayError while the brokers are lost; takes PROBE_TIMEOUT_S at most."""
        if self.is_doubtful and not self.probe():
            raise self._away("broker lost")

    def probe(self) -> bool:
        """Whether a broker answers now; says so when that has changed."""
        if self.is_out_of_time:
            return self._lost_at_ms is None
        try:
            self.admin.list_topics(self._settings.tick_topic, timeout=PROBE_TIMEOUT_S)
        except KafkaException as error:
            self.admin.poll(0)
            if self._refused is not None:
                raise refused(self._settings, self._refused) from error
            if self._lost_at_ms is None:
                self._lost_at_ms = self._clock.monotonic_ms()
                cause = self._cause or error.args[0].str()
                if self.is_running:
                    logger.warning("broker lost: %s; waiting", cause)
                else:
                    wait_s = self._settings.ask_ms / 1_000
                    logger.warning("no broker yet: %s; waiting up to %.0f s", cause, wait_s)
            return False
        if self.is_doubtful:
            self._back_at_ms = self._clock.monotonic_ms()
        self._is_suspected = False
        self._refused = None
        if self._lost_at_ms is not None:
            away_s = (self._clock.monotonic_ms() - self._lost_at_ms) / 1_000
            logger.info("broker %s after %.0f s", "back" if self.is_running else "there", away_s)
            self._lost_at_ms = None
            self._cause = ""
        return True
