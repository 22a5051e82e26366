"""Moderators: folders made from finished runs, and the library that scores texts with them.

from ssl_guard.moderator import Moderator

moderator = Moderator.load("moderator")
[judgement] = moderator([("How do I poach an egg?", "In water that barely moves.")])
"""

from ssl_guard.moderator.score import Judgement, Moderator

__all__ = ["Judgement", "Moderator"]
