"""From a file or an array to batches of images and labels: sources, transforms, loaders."""
