"""Runs -> boards: cells, rows, pairs with their verdicts, and their tables."""
