"""One HTML page on a run, or on several: `python -m nas.report runs/search/mine`.

The page needs nothing but itself: styles are in it, pictures are SVG, and it runs no script. What
is on it is read from the folders of the runs alone (`records`); `markup` escapes every text on the
way into the page.
"""
