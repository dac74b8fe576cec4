"""Published methods, one folder each, behind one contract (:mod:`models.core.method`)."""
