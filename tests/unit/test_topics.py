"""Topics: what an older broker says of a property that it does not know."""

import pytest
from confluent_kafka import KafkaError

from streamingcandle.kafka.topics import TICKS_CONFIG, is_unknown_config


@pytest.mark.parametrize(
    ("code", "said", "is_unknown"),
    [
        (KafkaError.INVALID_CONFIG, "Unknown topic config name: message.timestamp.after.max.ms", True),
        (KafkaError.INVALID_CONFIG, "Invalid value x for configuration retention.ms: Not a number", False),
        (KafkaError.POLICY_VIOLATION, "message.timestamp.after.max.ms is not for you", False),
    ],
)
def test_a_broker_that_does_not_know_the_limit_ahead(code: int, said: str, *, is_unknown: bool) -> None:
    assert is_unknown_config(KafkaError(code, said)) == is_unknown
    assert TICKS_CONFIG["message.timestamp.after.max.ms"] == "60000"
