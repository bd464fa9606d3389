"""Where runs come from, which of them are asked for, and what is read of each."""
