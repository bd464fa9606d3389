"""Colours, shapes and lines that tell series apart, to the colour-blind and in black and white too."""

# Okabe and Ito's colours, but for their yellow, which is too light on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "p", "*", "d")
LINES = ("-", "--", "-.", ":")
