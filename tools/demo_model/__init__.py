"""Draws the demo model's training pictures, trains it, evaluates it and exports it."""
