"""The listeners: which routes stand on which socket, and how a process leaves without losing
anything. A module for each plane; neither imports the other's.
"""
