"""The engine: recurrent networks in NumPy, search, and the picture encoder. Nothing here imports torch."""
