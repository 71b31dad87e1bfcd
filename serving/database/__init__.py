"""Postgres: connections, and what is read over them.

postgres        connections with time limits
datawatch       which data version to answer with
catalogue       reads of books, each from one snapshot
bulkheads       limits how many slow requests of one kind run at a time
exports         all books, streamed
turns           one export at a time per account
places          which exports may run, and which gives way
"""
