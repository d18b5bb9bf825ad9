"""The client of the Autobahn cases: a program for an environment of its own."""
