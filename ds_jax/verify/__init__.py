"""Answer checking: extraction, equivalence, other verifiers, and the killable pool around them."""
