"""Hostile guests, and what must hold after they have sent something."""
