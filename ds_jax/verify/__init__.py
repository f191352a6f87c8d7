"""Answer checking: extraction, equality (`math`), other verifiers, the killable pool."""
