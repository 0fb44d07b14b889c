"""The search driver: what to run next, who runs it, what is remembered. The only package that imports Ray or Optuna."""

from __future__ import annotations

from scalenet.search.driver import SearchInterrupted, default_workers, search
from scalenet.search.values import Observer, Progress, SearchResult, Silent, Timing, Trial

__all__ = [
    "Observer",
    "Progress",
    "SearchInterrupted",
    "SearchResult",
    "Silent",
    "Timing",
    "Trial",
    "default_workers",
    "search",
]
