"""How events of the page are sent."""

QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For events that only change the page: at once, without a spinner, not offered as an endpoint."""
QUEUED = QUIET | {"queue": True, "concurrency_limit": None}
"""The same for those that may have something to tell: gr.Info and gr.Warning reach the page through the queue only."""
CONFIRM = """(...values) => [...values.slice(0, -1),
                           window.confirm(window.palimpsest.translate('Delete the file of this picture?'))]"""
"""The script of a button that deletes: it asks, and the last input is told what was answered."""
