"""`python -m streamingcandle`: how `run --workers` starts its own."""

from streamingcandle.cli import main

main()
