"""Smaller and faster networks: functions from a Portable to a Portable that gives nearly, or exactly, the same features.

    fuse.plain            the same network in fewer, larger steps; the features stay
    vocabulary.prune      pieces that the user's texts do not need leave the tokeniser and the embedding table
    vocabulary.narrow     the embedding table in 8 or 16 bits
    channels.prune        inner channels of feed-forward layers that matter least leave; the rest is refitted
    integers.quantise     linear layers, or the convolutions of a picture network, in 8-bit integers

Cutting a network lower is the graph's own affair. Every result is row-wise and deterministic, as its backbone was.
"""
