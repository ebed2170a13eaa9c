"""The guests on the bus: their descriptions, their presence, and requests to them."""
