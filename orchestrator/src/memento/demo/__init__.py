"""The demo: the same questions in several rounds, with memory off and on, through the real servers."""
