"""The contracts of Khala: everything that two processes must agree on, and nothing else.

Pure: no module here opens a file or a socket, reads a clock, draws randomness, logs, or knows an
event loop. ``gen`` is generated from ``proto/openagents``; only the modules that map between wire
and domain touch it (codec and its parts, kinds, strict_json, fanout_records, http_messages).
"""
