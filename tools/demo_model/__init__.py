"""Draws the pictures the demo model learns from, trains it, measures it and exports it."""
