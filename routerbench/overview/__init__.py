"""How a sweep stands, and what is left of it: what it will take, and how many seeds would tell."""
