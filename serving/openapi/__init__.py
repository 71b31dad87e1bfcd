"""The OpenAPI document behind /docs.

document        completes what FastAPI makes of the routes
description     the introduction
examples        an example for each schema
"""
