"""How fast, how late, how large: `make bench`. BENCHMARKS.md holds the table and how to repeat it."""
