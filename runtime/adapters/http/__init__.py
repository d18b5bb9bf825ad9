"""HTTP of the runtime: messages in and out, nothing decided here."""
