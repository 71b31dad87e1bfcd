"""Postgres: how it is asked, and what is read from it.

postgres        connections with time limits
datawatch       which data version to answer with
catalogue       reads of books, each from one snapshot
bulkheads       few slow requests of a sort at a time
exports         all books, streamed
turns           one export at a time per account
places          which exports may run, and which gives way
"""
