"""Rows and recommendations -> the pages that readers see: plain HTML, no scripts, all text from shops escaped.

`pages` renders templates; `shelf` finds covers, `assets` style and icon; `forms` has what all forms need. The routes
are in routes/web*.py, the styles in static/style.css.
"""
