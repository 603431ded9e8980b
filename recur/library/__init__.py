"""A photo library of any size: what is in it, described once, found again, written where other programs read it.

`index.py` keeps it; `sources.py` walks folders, archives and tables, `reading.py` turns one of their pictures into what
is stored and what the model reads, `scan.py` does no work twice; `query.py` and `export.py` give it back; `metadata.py`
and `writing.py` put words into files and take them out again.
"""
