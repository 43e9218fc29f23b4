"""The production log: Kafka does the distribution, the failover and the transactions."""
