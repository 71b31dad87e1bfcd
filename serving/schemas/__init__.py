"""Requests and responses, as /docs shows them.

requests        parameters and bodies
cursor          where a page ended
books           books and recommendations
statistics, accounts, feedback, segments, crawls      responses of these routes
"""
