"""A sweep: what is left of it, what that will take, and how it is run."""
