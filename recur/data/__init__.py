"""Reading pictures, captions and text. Nothing here imports torch."""
