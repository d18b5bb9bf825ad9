"""Control's tables: one module per store of `ports`, SQL in `queries`, schema in `migrations`.

Service role `khala_control`; what it may do is granted table by table in the migrations.
"""
