"""What a session did, as data, tables, pages and pictures."""
