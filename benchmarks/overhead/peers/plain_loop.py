"""The floor's loop with the request given to the openai client as its documentation shows it."""

from functools import partial

from floor import session
from harness import measure

measure(partial(session, in_wire_form=False))
