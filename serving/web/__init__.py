"""Rows and recommendations -> the pages that readers see: plain HTML, no script, every text of a shop escaped.

`pages` renders; `shelf` knows which cover lies where, `assets` style and icon; `forms` is what forms have in common.
The routes are in routes/web*.py, the looks in static/style.css.
"""
