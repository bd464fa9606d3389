"""A sweep: its cells checked, launched and reported."""
