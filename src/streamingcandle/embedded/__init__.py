"""The log without a broker: SQLite, one ACID transaction a commit. The default until brokers are set."""
