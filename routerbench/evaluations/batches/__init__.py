"""How far predictions depend on the images that are routed together."""
