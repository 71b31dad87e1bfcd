"""The champion and what it serves: similar books, search, segments.

champion        the champion, kept current in the background
rehearsal       tests a new model before it is used
lineup          model + books -> what may be recommended now
neighbours      lists of similar books with score and reasons
near_bytes      scores and reasons, as JSON
passing         which books pass the filters
masks           filters -> cached masks of books
finder          search
segments        segments and their books
served          records each model in use, for feedback
"""
