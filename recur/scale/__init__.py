"""More pictures than one machine can do: work in shards, each done exactly once, by one process or by a Ray cluster.

`engine.py` has work done, here or by Ray; `folder.py` is where results go, a folder or a store; `shards.py` plans the
shards and commits them; `tasks.py` is what is done to the pictures of one; `scan.py` does the same for a library.
"""
