"""Trained routers replaced by others."""
