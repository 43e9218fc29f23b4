"""Processes that end while ticks come in: killed again and again, or asked to stop."""

import random
from pathlib import Path

from broker import Broker
from disturbance import Deployment, market

KILLS_MIN = 3


def test_killed_in_a_loop_while_ingesting(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    rng = random.Random(5)
    kills = 0
    with Deployment(broker, topic_prefix, tmp_path) as deployment:
        with deployment.feeding(market(2_000), rate_per_s=250) as feeder:
            # On a slow machine the ticks have come before it was killed often: then it is killed over what is left.
            while feeder.is_alive() or kills < KILLS_MIN:
                service = deployment.start()
                service.await_line("taken over")
                feeder.join(rng.uniform(0, 1))
                service.kill()
                kills += 1
        deployment.start().await_line("taken over")
        deployment.await_committed()
        deployment.stop_all()
        deployment.check()


def test_stopped_and_started_while_ingesting(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    rng = random.Random(6)
    with Deployment(broker, topic_prefix, tmp_path) as deployment:
        with deployment.feeding(market(2_000), rate_per_s=500) as feeder:
            while feeder.is_alive():
                deployment.start().await_line("taken over")
                feeder.join(rng.uniform(0, 1))
                deployment.stop_all()
        deployment.start().await_line("taken over")
        deployment.await_committed()
        deployment.stop_all()
        deployment.check()
