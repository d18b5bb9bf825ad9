"""Tasks of the node: one per topic, one nursery per connection, and the few that serve them all."""
