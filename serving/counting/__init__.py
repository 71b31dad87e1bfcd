"""Counts and pages: computed in memory if the books are there, else by Postgres.

counts          statistics, categories, facets and totals
stock_counts    statistics, counted in memory
page_counts     facets and totals, counted in memory
book_pages      a page of books, the cursor of the next one, the total
"""
