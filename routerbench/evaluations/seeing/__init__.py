"""What a model makes of test images, which all studies look at."""
