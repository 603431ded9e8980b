"""Benchmarks: recur beside other programs, in one run, and only where both have given equal results."""
