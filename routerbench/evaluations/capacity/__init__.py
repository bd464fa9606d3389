"""Capacity, number of choices and queueing changed after training."""
