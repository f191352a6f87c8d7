"""Attention: its parts, forms and backends."""
