"""Boards -> what holds at equal cost and across boards."""
