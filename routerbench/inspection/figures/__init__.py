"""What was seen of a run's routers -> pictures with their numbers."""
