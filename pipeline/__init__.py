"""Everything that makes pixels; importable and testable without a browser."""

__version__ = "0.1.0"
