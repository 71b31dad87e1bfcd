"""The API: a champion and a table -> answers over HTTP. `python -m serving`; needs neither Dagster nor scikit-learn.

Start
    __main__        environment -> run.py
    run             settings -> the API on its port, in one process or several
    workers         several processes on one socket; restarts those that end
    preloaded       imports everything once, in the process that workers are forked from
    malloc          makes glibc give memory back to the system
    app             create_app: puts all parts together (the composition root)
    dependencies    what routes get: the parts that app.py has put together

HTTP edge (middleware and headers)
    protocol        uvicorn's HTTP parser, with problems for what cannot be parsed
    joined_writes   head and body of a response leave in one write
    limits          413 and 415 for bodies that are too long or compressed
    sizes           the limits of a request's size
    security        security headers; redirects stay on this host
    headers         reads ASGI headers; which security headers a path gets
    heads           HEAD wherever there is GET
    codings         no gzip for clients that refuse it by `q=0`
    parameters      422 for unknown and repeated parameters
    problems        every error -> application/problem+json
    tracing         request ids and trace context
    logs            JSON lines on stderr
    metrics         Prometheus metrics
    figures         the metrics of all workers, added up
    versions        version headers, ETag and 304

Who may, and how often
    gate            who asks, and the quotas of requests (429)
    guard           token and scopes of a route (401, 403)
    accounts        register, log in, refresh, log out, password, deletion
    tokens          signs and checks access tokens
    registrations   quota of new accounts
    tries           quotas of wrong passwords
    policies        all quotas and their sizes
    quotas          counts them, for all workers in one mapped file
    turns           one export at a time per account
    places          which exports may run, and which gives way

Answers from memory
    kept            cached responses -> the same bytes again
    composed        responses assembled from bytes in memory
    composed_page   a page of books, likewise
    frame           the part that all responses of a champion share
    near_bytes      scores and reasons of similar books, as JSON
    book_bytes      each book's JSON
    book_files      the same for a large catalogue, in a file that all workers map
    book_filing     the process that writes that file
    fixed           /docs and the OpenAPI document, rendered once
    off_loop        work of some milliseconds, off the event loop, one after the other

Books and models in memory
    datawatch       which data version to answer with
    champion        the champion, kept current in the background
    served          notes each model that answers, for feedback
    lineup          model + books -> what may be recommended now
    stock_files     the columns of a large catalogue, in files that all workers map
    masks           filters -> cached masks of books
    passing         which books pass the filters
    neighbours      lists of similar books with score and reasons
    finder          search
    segments        segments and their books
    facets          counts for filter menus
    page_counts     the same, counted in memory
    counts          statistics, in memory or by Postgres
    stock_counts    statistics, counted in memory
    disk            whether the home has room and can be written to

Postgres and Dagster
    postgres        connections with time limits
    catalogue       reads of books, each from one snapshot
    bulkheads       few slow requests of a sort at a time
    book_pages      a page of books, the cursor of the next one, the total
    exports         all books, streamed
    feedback        stores events; popular books
    crawls          starts and follows crawls in Dagster

Shapes and documentation
    questions       requests: parameters and bodies
    digits          how numbers may be written
    cursor          where a page ended
    schemas         responses: books and recommendations
    statistics, account_shapes, feedback_shapes     responses of these routes
    description     the introduction of /docs
    document        completes the OpenAPI document
    examples        an example for each schema

Routes and pages
    routes/         one file per group of endpoints; the folder is scanned
    web/            templates, forms and styles of the web catalogue
"""
