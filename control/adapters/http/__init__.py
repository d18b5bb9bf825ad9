"""Control over HTTP: a module per subject, each registering its routes on the one application.

Routes translate: bodies to arguments, results to messages, `Refused` to Error bodies. Decisions are made
in `core`, orders kept in `actors`.
"""
