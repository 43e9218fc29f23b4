"""One suite of promises (`interfaces.py`), held against every log there is."""
