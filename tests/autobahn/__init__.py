"""The Autobahn case classes against the node's frame layer; see __main__.py for the command."""
