"""The listed books in a server's memory and files: their JSON, and columns to filter and count by.

book_bytes      each book's JSON
book_files      the same for a large catalogue, in a file that all workers map
book_filing     the process that writes that file
stock_files     the columns of a large catalogue, in files that all workers map
facets          counts for filter menus
"""
