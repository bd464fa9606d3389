"""What was seen of routers, in numbers."""
