"""The engine: one module per box of the picture in ``sqspipes``."""
