"""Responses from memory, and the headers that let clients keep them.

versions        version headers, ETag and 304
kept            cached responses -> the same bytes again
composed        responses assembled from bytes in memory
composed_page   the same for a page of books
frame           the parts that all responses of a champion share
fixed           /docs and the OpenAPI document, rendered once
"""
