"""openalgo-bridge's kit: a stock OpenAlgo also appends its events to a file, with none of its own edited."""

__version__ = "1.0"

from .facade import EventPublisherFactory
from .kit import load

__all__ = ["EventPublisherFactory", "load"]
