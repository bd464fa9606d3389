"""What each image gets where there are too few slots."""
