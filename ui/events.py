"""How events of the page are sent."""

QUIET = {"queue": False, "show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
"""For events that only change the page: at once, without a spinner, not offered as an endpoint.

The empty list is no repetition: without it the page looks every output up in its tree of components to tell it to show
nothing, at every step of a picture for the outputs of all events so far, which took half of its time."""
QUEUED = QUIET | {"queue": True, "concurrency_limit": None}
"""The same for those that may have something to tell: gr.Info and gr.Warning reach the page through the queue only."""
CONFIRM = """(...values) => [...values.slice(0, -1),
                           window.confirm(window.palimpsest.translate('Delete the file of this picture?'))]"""
"""The script of a button that deletes: it asks, and the last input is told what was answered."""
