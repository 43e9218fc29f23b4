"""What a candle is: pure, no I/O, no clock. Time, bytes and rules come in as arguments."""
