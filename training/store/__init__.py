"""The artifact store where it is a bucket of an S3-compatible server: runs without a folder that machines share.

`opening.open_store()` gives it, or None where artifacts are a folder; then nothing here is ever used. `objects` speaks
S3, `bundles` says what of a run is kept there and under which names, `cache` keeps on this machine what was fetched.
Snapshots are in the same place, through Django's default storage.
"""
