"""One pass over the test images of a run: what is kept of it, and read again."""
