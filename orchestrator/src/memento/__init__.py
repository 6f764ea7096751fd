"""Memento: an agent that gets better at research with every task, with no model fine-tuned.

Start with `session.open_session`, which wires everything up, and `agent.Agent`, which is the loop.
"""
