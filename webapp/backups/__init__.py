"""Backups: the database as pg_dump writes it, the files that its rows name, and a manifest with every hash.

The order is what makes them whole. A snapshot or a model is in its place before the row that names it is committed, and
is never written to again; so files that are copied after the database was dumped include every file that the dump
names. The other way round, rows could name files that were made in between.
"""
