"""Sections of tables, and each way to show them."""
