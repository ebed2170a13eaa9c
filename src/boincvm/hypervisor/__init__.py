"""The driver contract, features as data, the acceleration probe, the drivers."""
