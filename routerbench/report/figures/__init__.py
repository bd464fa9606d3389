"""Boards and runs -> pictures of the page."""
