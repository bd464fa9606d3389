"""What a trained model does when it is evaluated otherwise: capacity, batch-mates, routers, other images."""
