"""What the routers of a trained model do: who serves what, where, since when."""
