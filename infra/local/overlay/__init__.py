"""Keywheel's overlay on the pinned MiniStack emulator.

Each module closes gaps of one service, so that the local cloud refuses,
pages, labels and records as AWS does wherever Keywheel depends on it. The
emulator itself is never edited: the overlay replaces functions at start and
refuses to start when one of them is not the function it was written against.
"""
