"""Pretended worlds from a seed: a market."""
