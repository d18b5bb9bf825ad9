"""Identity providers: who somebody is, said by somebody else. Control keeps no credential of a person."""
