"""How events of the page are sent."""

QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For events that only change the page: at once, without a spinner, not offered as an endpoint."""
QUEUED = QUIET | {"queue": True, "concurrency_limit": None}
"""The same for those that may have something to tell: gr.Info and gr.Warning reach the page through the queue only."""
