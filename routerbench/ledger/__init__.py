"""The ledger: what `results/` knows of every run, those that are over and those that are not."""
