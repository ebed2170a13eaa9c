"""The guests on the bus: who they are, whether they are there, and requests to them."""
