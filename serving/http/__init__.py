"""The HTTP edge: what applies to every request and response, whatever the route.

protocol        uvicorn's HTTP parser, with problems for what cannot be parsed
joined_writes   sends head and body of a response in one write
limits          413 and 415 for bodies that are too long or compressed
sizes           the limits of a request's size
security        security headers; redirects stay on this host
headers         reads ASGI headers; which security headers a path gets
heads           HEAD wherever there is GET
codings         no gzip for clients that refuse it with `q=0`
parameters      422 for unknown and repeated parameters
digits          how numbers may be written
problems        every error -> application/problem+json
problem_kinds   all kinds of problems
tracing         request ids and trace context
"""
