"""FLIP as a reward in other trainers: `trl`, `verl` and `openrlhf`, and what they share.

Importing an adapter loads neither its trainer nor torch. A page for each is in docs/.
"""
