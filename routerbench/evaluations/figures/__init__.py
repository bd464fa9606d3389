"""What was measured of trained models, drawn."""
