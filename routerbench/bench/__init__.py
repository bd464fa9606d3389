"""Benchmarks on this machine: options -> cases -> contestants -> rounds -> a JSON file -> tables, a plot."""
