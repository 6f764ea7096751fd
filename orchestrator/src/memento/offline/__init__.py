"""The offline stand-in: a small OpenAI-compatible server of deterministic rules, with no language model in it.

It lets the whole system run with no key and no network (DESIGN.md, "The offline stand-in"). Its rules can do a
handful of things honestly; *which* of them suits which kind of question it does not know, and can only learn
from the cases it is shown.
"""

from memento.offline.server import OFFLINE_MODEL, Fault, StandIn, serve_stand_in

__all__ = ["OFFLINE_MODEL", "Fault", "StandIn", "serve_stand_in"]
