"""The API: the champion and the table of books -> responses over HTTP. `python -m serving` starts it; it needs neither
Dagster nor scikit-learn.

Start
    __main__        environment -> run.py
    run             settings -> the API on its port, in one process or several
    preloaded       imports everything once, in the process that workers are forked from
    app             create_app: puts all parts together (the composition root)
    dependencies    what routes get: the parts that app.py has assembled

Public interface
    routes/         endpoints and pages: one file per group; the folder is scanned
    web/            templates, forms and styles of the web catalogue
    schemas/        requests and responses
    openapi/        the document behind /docs

Behind the routes
    answers/        responses from memory; ETag and 304
    recommender/    the champion: similar books, search, segments
    counting/       statistics, facets, totals, pages
    books/          the listed books in memory and in files
    database/       Postgres: snapshots, data versions, exports
    feedback        stores events; popular books
    crawls          starts and follows crawls in Dagster

Around all requests
    http/           the edge: headers, limits, problems, tracing
    access/         accounts, tokens, quotas
    process/        workers, logs, memory, disk
    monitoring/     metrics

Each folder's `__init__.py` says what its files do. A request passes through http/ and access/gate, then answers/kept
and answers/composed, which answer frequent requests from memory. All other requests reach routes/.
"""
