"""What a process keeps on disk: which instance it is. Losing it costs seconds, never data."""
