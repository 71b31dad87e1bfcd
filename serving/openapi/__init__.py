"""The OpenAPI document behind /docs.

document        completes what FastAPI generates from the routes
description     the introduction
examples        an example for each schema
"""
