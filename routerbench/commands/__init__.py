"""The commands of `routerbench`, one a file: its words, and what it does with them."""
