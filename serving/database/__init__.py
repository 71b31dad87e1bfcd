"""Postgres: connections, and what is read over them.

postgres        connections with time limits
datawatch       which data version to answer with
catalogue       reads of books, each from one snapshot
bulkheads       limits how many slow requests of one kind run at a time
exports         all books, streamed
account_locks   one export at a time per account
export_slots    which exports may run, and which gives way
"""
