"""Requests and responses, as /docs shows them.

requests        parameters and bodies
cursor          where a page ended
rules           what an error says of a text that does not match its pattern
books           books and recommendations
statistics, accounts, feedback, segments, crawls, operations      responses of these routes
"""
